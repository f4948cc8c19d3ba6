"""Errors that a user can fix: each message says what is wrong, where, and how to fix it."""


class UserError(ValueError):
    """Base of every error caused by input or environment rather than by a defect of this project."""


class ConfigError(UserError):
    """A config that cannot be run."""


class PromptError(UserError):
    """A prompt source with unusable lines."""


class PolicyError(UserError):
    """A model directory that cannot serve as a policy."""


class EngineError(UserError):
    """A generation engine that is missing, or cannot serve the policy."""


class JudgeError(UserError):
    """A judge that cannot be loaded, or whose answer cannot be used."""


class StoreError(UserError):
    """A weights store that cannot be used."""


class BlobError(StoreError):
    """A stored file that is missing or damaged."""


class NoteError(StoreError):
    """A note that cannot be read, so that the files it refers to are not known."""
