"""How a command of ours ends in the terminal when its user can fix what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.config.errors import UserError


@contextmanager
def plain_errors(written: Path | None = None) -> Iterator[None]:
    """A UserError ends the process with its message and status 1; so does a directory that cannot be written."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if written is None:
            raise
        sys.exit(f"error: {written}: cannot be written ({error.strerror}). Name another directory.")
