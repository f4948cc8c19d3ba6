"""Paths that a user names, in a config or on a command line: `~` means a home, and each can be looked up.

They are of this machine's file system: of an address such as `s3://bucket/x` a folder `s3:` would be made here, and
nothing means the working directory.
"""

from __future__ import annotations

import argparse
import errno
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from components.config.errors import UserError

SHOWN = 80  # characters of a path in a message
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}


def of_this_machine(text: str) -> str:
    """The text, of a path or a name. Raises ValueError for nothing and for an address."""
    if not text.strip():
        raise ValueError("is empty. Name a path.")
    if "://" in text:
        raise ValueError(f"{_shown(text)} is an address, and a path on this machine is needed. Name one.")
    return text


# A setting that names a file or a directory, whether or not it is there.
LocalPath = Annotated[str, AfterValidator(of_this_machine)]


def user_path(text: str, key: str, error: type[Exception]) -> Path:
    """The path that a text means, whether or not something is there; `exists` and the like do not fail for it.

    Args:
        text: as it was written.
        key: where, for the message.
        error: the kind of error to raise.

    Raises:
        error: nothing, an address, the home of no user, a name too long, links in a circle, a folder that nobody may
            look into, characters that no path holds.
    """
    try:
        of_this_machine(text)
    except ValueError as reason:
        raise error(f"{key}: {reason}") from reason
    try:
        path = Path(text).expanduser()
        path.stat()
    except OSError as reason:
        if reason.errno in _NOT_THERE:
            return path
        raise error(_message(text, key, str(reason.strerror))) from reason
    except (RuntimeError, ValueError) as reason:  # ~ of no user; NUL and half a surrogate pair
        raise error(_message(text, key, str(reason))) from reason
    return path


def _message(text: str, key: str, reason: str) -> str:
    return f"{key}: {_shown(text)} cannot be looked up ({reason.rstrip('.')}). Check the path."


def _shown(text: str) -> str:
    return f"{text if text.isprintable() else ascii(text):.{SHOWN}}"


def argument(text: str) -> Path:
    """`user_path` as the type of an argument of `argparse`."""
    try:
        return user_path(text, "path", UserError)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("path: ")) from error
