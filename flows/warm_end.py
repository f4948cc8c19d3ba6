"""How a fork of the warm process ends: in order, but without taking apart all that was imported.

That takes Python half a second, longer than many a task's own work. Where a user's code was imported, Python does it as
ever, for objects may do something then. Imported before all else, for what is registered first is called last.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - nothing that registers itself is imported before
OURS = tuple(
    os.path.realpath(folder) + os.sep
    for folder in (HERE, os.path.join(HERE, os.pardir, "components"), sys.prefix, sys.base_prefix)  # noqa: PTH118
)
LONGEST = 30.0  # seconds for what is written and waits for a reader, or for a lock that a thread holds for ever
FILES = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
_ended: list[int] = []  # the status of this fork, once its work has ended


@contextmanager
def noted() -> Iterator[None]:
    """Notes how what is done in this while ends, which is the last that a fork does."""
    before, status = {*sys.modules}, 1
    try:
        yield
        status = 0
    except SystemExit as stop:
        status = stop.code & 0xFF if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except KeyboardInterrupt:
        status = -1  # Python ends by the signal
        raise
    finally:
        if status >= 0 and not any(map(_is_a_users, ({*sys.modules} - before) | {"__main__"})):
            _ended.append(status)


def _is_a_users(module: str) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    return isinstance(file, str) and not os.path.realpath(file).startswith(OURS)


@atexit.register
def leave() -> None:
    """Ends a fork at once; what somebody has written and not closed is in the files."""
    if not _ended:
        return
    threading.Thread(target=_leave_at_last, daemon=True).start()
    written = [value for value in gc.get_objects() if issubclass(type(value), FILES)]
    for file in sorted(written, key=lambda value: not issubclass(type(value), io.TextIOWrapper)):  # into the others
        with suppress(ValueError, OSError):  # closed, detached, or nobody reads
            file.flush()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()  # an error leaves the end to Python, which tells of it
    ctypes.CDLL(None).fflush(None)  # of libraries in C
    os._exit(_ended[0])


def _leave_at_last() -> None:
    time.sleep(LONGEST)
    os._exit(_ended[0])
