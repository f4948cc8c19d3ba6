"""What of a flow's command line Metaflow would end in a traceback or wait for without end, checked before it does."""

from __future__ import annotations

import errno
import os
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from components.config import strict_json
from components.config.errors import ConfigError, StoreError, UserError
from components.config.paths import user_path
from components.config.schema import cut
from components.config.strict_yaml import read_text
from components.runtime.terminal import visible

CONFIG, CONFIG_VALUE, VARIABLE = "--config", "--config-value", "METAFLOW_FLOW_CONFIG"
WORKERS, ROOT, RUN_ID_FILE = "--max-workers", "--datastore-root", "--run-id-file"
LOCAL_ROOT = "METAFLOW_DATASTORE_SYSROOT_LOCAL"
KINDS = ("datastore", "metadata")
LAUNCHING = {"run", "resume"}  # commands that start tasks
AT_ONCE = "WIND_AT_ONCE"  # environment variable: how many tasks of a run may be at work on this machine
USUAL_WORKERS = 16  # Metaflow's own
MOST_WORKERS = 1_000_000


class OptionError(UserError):
    """A command line that cannot be run."""


def workers(arguments: Sequence[str]) -> int:
    """How many tasks a `run` or `resume` has at once, by its options or Metaflow's environment variables.

    Raises OptionError for what is no such number; of none Metaflow would never start a task.
    """
    words = [part for word in arguments for part in word.split("=", 1)]
    command = next((word.upper() for word in words if word in LAUNCHING), "RUN")
    variable = f"METAFLOW_{command}_MAX_WORKERS"
    given = [(WORKERS, value) for option, value in pairwise(words) if option == WORKERS]
    if not given and not os.environ.get(variable):
        return USUAL_WORKERS
    source, said = given[-1] if given else (variable, os.environ[variable])
    try:
        found = int(said)  # as Metaflow reads it, with signs, spaces and digits of any script
    except ValueError:  # also of thousands of digits
        found = 0
    if not 1 <= found <= MOST_WORKERS:
        raise OptionError(f"{source}: {cut(said)} is no number of tasks. Use 1 or more, up to {MOST_WORKERS}.")
    return found


def check(arguments: Sequence[str]) -> None:
    """Raises UserError for what Metaflow cannot run with.

    That is a config file that cannot be read, no number of workers, a datastore or a --run-id-file without a place,
    and control characters, which Metaflow would send to the terminal.
    """
    _require_plain(arguments)
    if LAUNCHING & set(arguments):
        workers(arguments)
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for path in map(Path, _configs(words)):
        if not _is_pipe(path):  # what comes through one can be read once
            read_text(path)
    for option, value in pairwise(words):
        if option == ROOT and "://" not in value:
            _require_place(user_path(value, ROOT, StoreError))
        if option == RUN_ID_FILE:
            _require_file(Path(value))
    sysroot = os.environ.get(LOCAL_ROOT)
    if sysroot and ROOT not in words and _keeps_locally(words):
        _require_place(Path(sysroot), LOCAL_ROOT)


def _require_plain(arguments: Sequence[str]) -> None:
    """Raises OptionError for control characters; a config's text may hold some, and errors in it show them."""
    for word, before in zip(arguments, ["", "", *arguments], strict=False):
        odd = any(unicodedata.category(sign) == "Cs" for sign in word)  # bytes of a file's name that are no text
        if not odd and before != CONFIG_VALUE and (said := visible(word)) != word:
            raise OptionError(f"{cut(said)}: holds control characters, written here as escapes. Leave them out.")


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


def _keeps_locally(words: Sequence[str]) -> bool:
    """Whether Metaflow keeps a run's data, or what it knows of the run, on this machine's file system."""
    said = dict(pairwise(words))
    kinds = [said.get(f"--{kind}", os.environ.get(f"METAFLOW_DEFAULT_{kind.upper()}")) for kind in KINDS]
    return bool({None, "local"} & set(kinds))


def _require_place(root: Path, said: str = ROOT) -> None:
    """Raises StoreError, about what was `said`, where a local datastore cannot be made."""
    try:
        there = next(place for place in [root, *root.absolute().parents] if _is_there(place))
        _try_folder(there)
    except OSError as error:
        raise StoreError(
            f"{said}: {root} cannot be written ({error.strerror}). Name a directory that can be."
        ) from error


def _require_file(path: Path) -> None:
    """Raises OptionError where Metaflow could not write the run's number."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _try_folder(path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OptionError(
            f"{RUN_ID_FILE}: {path} cannot be written ({error.strerror}). Name a file in a directory that is there."
        ) from error


def _is_there(path: Path) -> bool:
    """Whether there is something of this name, be it a link to nowhere. Raises OSError for what cannot be a name."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _try_folder(folder: Path) -> None:
    """Raises OSError unless folders can be made there: of some file systems only trying tells."""
    with tempfile.TemporaryDirectory(prefix=".wind-check-", dir=folder):
        pass
