"""What of a flow's command line Metaflow would end in a traceback or wait for without end, checked before it does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from components.config import strict_json
from components.config.errors import ConfigError, StoreError, UserError
from components.config.paths import user_path
from components.config.strict_yaml import read_text

CONFIG, VARIABLE = "--config", "METAFLOW_FLOW_CONFIG"
WORKERS, ROOT = "--max-workers", "--datastore-root"


class OptionError(UserError):
    """A command line that cannot be run."""


def check(arguments: Sequence[str]) -> None:
    """Raises UserError for config files that cannot be read, for no workers and for a datastore without a place."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for path in map(Path, _configs(words)):
        if not _is_pipe(path):  # what comes through one can be read once
            read_text(path)
    for option, value in pairwise(words):
        if option == WORKERS and value.lstrip("-").isdecimal() and int(value) < 1:
            raise OptionError(f"{WORKERS}: {value} would never run a task. Use 1 or more.")
        if option == ROOT and "://" not in value:
            _require_place(user_path(value, ROOT, StoreError))


def _is_pipe(path: Path) -> bool:
    try:
        return path.is_fifo()
    except OSError:  # reading it says why
        return False


def _configs(words: Sequence[str]) -> Iterator[str]:
    """Files that a command line and Metaflow's environment variable name."""
    yield from (path for option, path in zip(words, words[2:], strict=False) if option == CONFIG)
    text = os.environ.get(VARIABLE)
    if text is None:
        return
    try:
        files = strict_json.loads(text)
    except strict_json.JsonError as error:
        raise ConfigError(f'{VARIABLE}: {error}. Write {{"config": "FILE"}}, or unset it.') from error
    if not isinstance(files, dict) or not all(isinstance(path, str) for path in files.values()):
        raise ConfigError(f'{VARIABLE}: {text:.80} names no files. Write {{"config": "FILE"}}, or unset it.')
    yield from files.values()


def _require_place(root: Path) -> None:
    """Raises StoreError where a local datastore cannot be made."""
    there = next(place for place in [root, *root.absolute().parents] if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"{ROOT}: {root} cannot be written, for {there}. Name a directory that can be.")
