"""How a fork of the warm process ends: in order, but without taking apart all that was imported.

That takes Python half a second, longer than many a task's own work. Imported before all else, for what is registered
first is called last.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

_ended: list[int] = []  # the status of this fork, once its work has ended


@contextmanager
def noted() -> Iterator[None]:
    """Notes how what is done in this while ends, which is the last that a fork does."""
    status: int | None = 1
    try:
        yield
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except KeyboardInterrupt:
        status = None  # Python ends by the signal
        raise
    finally:
        if status is not None:
            _ended.append(status)


@atexit.register
def leave() -> None:
    """Ends a fork at once; what somebody has written and not closed is in the files."""
    if not _ended:
        return
    open_files = [value for value in gc.get_objects() if isinstance(value, io.TextIOWrapper | io.BufferedWriter)]
    for file in sorted(open_files, key=lambda value: isinstance(value, io.BufferedWriter)):  # which texts go into
        if not file.closed:
            file.flush()  # an error leaves the end to Python, which tells of it
    os._exit(_ended[0])
