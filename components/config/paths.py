"""Paths that a user names, in a config or on a command line: `~` means a home, and each can be looked up."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

from components.config.errors import UserError

SHOWN = 80  # characters of a path in a message
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}


def user_path(text: str, key: str, error: type[Exception]) -> Path:
    """The path that a text means, whether or not something is there; `exists` and the like do not fail for it.

    Args:
        text: as it was written.
        key: where, for the message.
        error: the kind of error to raise.

    Raises:
        error: the home of no user, a name too long, links in a circle, a folder that nobody may look into, characters
            that no path holds.
    """
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
    shown = text if text.isprintable() else ascii(text)
    return f"{key}: {shown:.{SHOWN}} cannot be looked up ({reason.rstrip('.')}). Check the path."


def argument(text: str) -> Path:
    """`user_path` as the type of an argument of `argparse`."""
    try:
        return user_path(text, "path", UserError)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("path: ")) from error
