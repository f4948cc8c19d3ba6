"""Puts an exported directory on the Hugging Face hub, or on what HF_ENDPOINT names in its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.config.errors import UserError
from components.export.public import HIDDEN, public_text
from components.export.sources import license_of
from components.policy.weight_files import INDEX

BRANCH = re.compile(r"[\w-]+(?:[./][\w-]+)*")  # of those that git takes
TOKENS = "https://huggingface.co/settings/tokens"
LONGEST = 300  # characters of what the hub said


class PushError(UserError):
    """What cannot be put on the hub."""


@dataclass(frozen=True)
class Target:
    """Where a policy goes."""

    repository: str  # ORG/NAME
    private: bool = False  # of a new one; an existing one must be
    revision: str | None = None  # branch, made if need be; None: main


@dataclass(frozen=True)
class Bearer:
    """Whose a token is, and what for, as the hub says."""

    token: str  # its name
    role: str | None
    spaces: tuple[str, ...]  # users and organisations


@dataclass(frozen=True)
class Hub:
    """A hub that has taken the token and may take the policy."""

    target: Target
    api: Any
    token: str

    def base_license(self, model: str) -> dict[str, str] | None:
        """The license that a model's card on the hub names; None if the hub shows no such model.

        Raises PushError where the hub does not answer.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._told("ask the hub for the base model"):
            try:
                data = self.api.model_info(model).card_data
            except RepositoryNotFoundError:
                return None
        return {} if data is None else license_of(f"---\n{data.to_yaml()}\n---\n")

    def push(self, directory: Path, message: str) -> str:
        """Puts the files of a directory on the branch as a new commit, whose address it returns.

        Other files there stay, but for weights at the top that are not of this export: loaders might take them.
        Raises PushError.
        """
        target = self.target
        place = {"repo_id": target.repository, "revision": target.revision}
        with self._told(f"upload {directory}", kept=directory):
            self.api.create_repo(target.repository, private=target.private or None, exist_ok=True)
            if target.revision not in (None, "main"):
                self.api.create_branch(target.repository, branch=target.revision, exist_ok=True)
            stale = [name for name in self.api.list_repo_files(**place) if _is_weights(name)]
            done = self.api.upload_folder(
                **place, folder_path=directory, commit_message=message, delete_patterns=stale or None
            )
            return str(done.commit_url)

    @contextmanager
    def _told(self, doing: str, kept: Path | None = None) -> Iterator[None]:
        """Turns what the hub's client raises into a PushError; says that the export in `kept` is not lost."""
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        after = f" The export is whole in {kept}: push it again with `hf upload {self.target.repository} {kept}`."
        after = after if kept else ""
        try:
            yield
        except HfHubHTTPError as error:
            what, remedy = self._refusal(error.response.status_code)
            said = self._said(error.server_message or str(error))
            raise PushError(f"--push: cannot {doing}: {what} ({said}). {remedy}{after}") from error
        except (HTTPError, OSError) as error:  # no way to the hub, offline mode among them
            raise PushError(
                f"--push: cannot {doing}: {self.api.endpoint} cannot be reached ({self._said(_causes(error))}). Check "
                f"the network, HF_ENDPOINT and HF_HUB_OFFLINE.{after}"
            ) from error
        except (RuntimeError, ValueError, KeyError) as error:  # of large files; an answer that is none
            raise PushError(
                f"--push: cannot {doing} ({self._said(_causes(error))}). Try again; behind a proxy or with a hub "
                f"that has no Xet storage, set HF_HUB_DISABLE_XET=1.{after}"
            ) from error

    def _said(self, text: str) -> str:
        line = " ".join(public_text(text.replace(self.token, HIDDEN)).split()).rstrip(".")
        return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"

    def _refusal(self, status: int) -> tuple[str, str]:
        """What a status means, and what to do."""
        repository = self.target.repository
        return {
            400: ("the hub cannot use a name or a file", "Correct --push, --revision, or what it names."),
            401: ("the hub does not accept the token", f"Make one that may write at {TOKENS} and set HF_TOKEN to it."),
            403: (
                f"the token may not write to {repository}",
                f"Ask for the right to write there, use a token that has it ({TOKENS}), or name another.",
            ),
            404: (f"the hub does not show {repository} to this token", "Check the name and the token's rights."),
            409: (f"{repository} is being changed by somebody else", "Try again."),
            413: ("a file is too large for the hub", "See what your plan stores, or export with --dtype bf16."),
            429: ("the hub was asked too often", "Try again in some minutes."),
        }.get(status, (f"the hub answers with status {status}", "Try again later."))


def ready(target: Target) -> Hub:
    """Checks all that can be known before there is anything to upload.

    Raises PushError for a name that is none, no token, one that the hub does not accept or that may not write there, a
    public repository where a private one is wanted, and a hub that cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    _check_names(target)
    token = get_token()
    if not token:
        raise PushError(
            f"--push: there is no token of the hub. Make one that may write at {TOKENS} and set HF_TOKEN to it, or log "
            "in with `hf auth login`."
        )
    hub = Hub(target, HfApi(token=token), token)
    _check_rights(target, _bearer(hub))
    _check_visibility(hub)
    return hub


def _check_names(target: Target) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = target.repository
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PushError(f"--push: {name!r} cannot name a repository ({error}). Write ORG/NAME or USER/NAME.") from error
    if "/" not in name:
        raise PushError(f"--push: {name!r} does not say whose it is to be. Write ORG/NAME or USER/NAME.")
    if target.revision is not None and not BRANCH.fullmatch(target.revision):
        raise PushError(f"--revision: {target.revision!r} cannot name a branch. Use letters, digits, - . and /.")


def _bearer(hub: Hub) -> Bearer:
    """Logs in. Raises PushError, also where what answers is no hub."""
    with hub._told("log in"):
        try:
            who = hub.api.whoami()
        except json.JSONDecodeError:  # a web page
            who = None
    try:
        access = (who.get("auth") or {}).get("accessToken") or {}
        scopes = [scope.get("entity", {}) for scope in (access.get("fineGrained") or {}).get("scoped", [])]
        more = [str(one.get("name")) for one in (*who.get("orgs", []), *scopes) if one.get("name")]
        return Bearer(str(access.get("displayName", "")), access.get("role"), (str(who["name"]), *more))
    except (AttributeError, KeyError, TypeError) as error:
        raise PushError(
            f"--push: {hub.api.endpoint} is no hub: asked whose the token is, it answers what no hub answers. Correct "
            "HF_ENDPOINT, or unset it."
        ) from error


def _check_rights(target: Target, bearer: Bearer) -> None:
    """Raises PushError where what the hub says of a token shows that it may not write."""
    if bearer.role == "read":
        raise PushError(f"--push: the token {bearer.token!r} may only read. Make one that may write at {TOKENS}.")
    owner = target.repository.partition("/")[0]
    if owner.lower() not in {space.lower() for space in bearer.spaces}:
        known = ", ".join(dict.fromkeys(bearer.spaces))
        raise PushError(
            f"--push: the token may not write to {owner}. It belongs to: {known}. Name one of them, or use another "
            "token."
        )


def _check_visibility(hub: Hub) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    with hub._told("look for the repository"):
        try:
            found = hub.api.model_info(hub.target.repository)
        except RepositoryNotFoundError:
            return
    if hub.target.private and not found.private:
        raise PushError(
            f"--private: {hub.target.repository} is there and is public. Make it private in its settings, or name "
            "another."
        )


def _is_weights(name: str) -> bool:
    return "/" not in name and (name.endswith(".safetensors") or name == INDEX)


def _causes(error: BaseException) -> str:
    """An error with those that led to it: of a large file the client tells only its name."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause) or type(cause).__name__)
        cause = cause.__cause__
    return ": ".join(text.strip().rstrip(".") for text in texts)
