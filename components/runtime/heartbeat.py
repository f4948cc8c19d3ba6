"""A sign of life from work that has nothing to report for long: loading, storing, a call that takes its time."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

QUIET = 20.0  # seconds without a word
MOST = 3  # times that long at most between two signs of life: a minute
_SIGN = re.compile(r"\w+: still running( after `.*`)?, no news for \d+ s")


class Heartbeat:
    """While its context lasts: a line after `quiet` seconds without `heard`, after 2 and 4 times that, then each 3."""

    def __init__(
        self,
        name: str,
        *,
        quiet: float = QUIET,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: name of the work; quiet in seconds; stream is stderr if absent; clock gives the time in seconds."""
        self._name, self._quiet, self._stream, self._clock = name, quiet, stream or sys.stderr, clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"wind heartbeat of {name}", daemon=True)
        self.heard(name)

    def heard(self, what: str) -> None:
        """Something was reported: the silence begins anew."""
        self._last, self._what, self._due = self._clock(), what, self._quiet

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def sign(self) -> str:
        """The line that is due now, or nothing: each is due once."""
        silence = self._clock() - self._last
        if silence < self._due:
            return ""
        self._due += min(self._due, MOST * self._quiet)
        after = "" if self._what == self._name else f" after `{self._what}`"
        return f"{self._name}: still running{after}, no news for {silence:.0f} s\n"

    def _watch(self) -> None:
        while not self._ended.wait(self._quiet / 20):
            if line := self.sign():
                self._stream.write(line)
                self._stream.flush()


def is_sign(line: str) -> bool:
    """Whether a line of a log is a heartbeat's sign of life."""
    return _SIGN.fullmatch(line.strip()) is not None
