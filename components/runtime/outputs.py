"""The output of a command: it ends the command when nobody takes it, or no disk has room for it."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

NOBODY_READS = 128 + signal.SIGPIPE  # exit status of a program whose output nobody takes, as shells have it


@contextmanager
def checked() -> Iterator[None]:
    """While this lasts, and after it, output that cannot be written ends this process: once, in order.

    Nobody reads any more, as with `| head`: status 141 and no word. Else, as on a full disk, a line and status 1. It is
    a SystemExit, since whatever prints takes an OSError for one of its own. Streams that are not the process's own,
    such as a test's, stay as they are.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this: what asks it whether it is a terminal needs one
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _checked(stream))
    try:
        yield
    finally:
        for written in (sys.stdout, sys.stderr):
            if written is not None:  # closed by whoever started this
                written.flush()


class _Output(io.FileIO):
    """Bytes to a file descriptor, until that fails; the rest goes nowhere, for buffers are written at the end too."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return len(data)
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
        except OSError as error:
            self._failed = True
            if error.errno == errno.EPIPE:
                raise SystemExit(NOBODY_READS) from None
            raise SystemExit(f"error: output cannot be written ({error.strerror}). Send it elsewhere.") from None
        return written


def _checked(stream: io.TextIOWrapper) -> TextIO:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,  # not every terminal has every sign
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
