"""A few lines at the end of a terminal that are drawn anew in their place, while others are written above them."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from components.runtime.terminal import visible

DUMB = ("", "dumb")  # kinds of terminal, by TERM, that cannot move back


def can_redraw() -> bool:
    """Whether all that this process writes goes to a terminal which can move its cursor back."""
    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "") not in DUMB


class Screen:
    """Draws lines in one place of a terminal; safe to use from several threads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.RLock()
        self._drawn: list[str] = []
        self._begun = ""  # text for above that has no end of line yet

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines: the terminal's own, since COLUMNS and LINES do not change with it."""
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):  # it is no terminal
            return shutil.get_terminal_size()
        return found if found.columns and found.lines else shutil.get_terminal_size()

    def draw(self, lines: Sequence[str]) -> None:
        """Puts these lines in the place of the last ones; a line that is too long would wrap, and loses its end."""
        columns, most = self.size
        fit = [_beginning(visible(line), columns - 1) for line in lines[: most - 1]]
        with self._lock:
            if fit != self._drawn:
                self._write(_back_over(self._drawn) + _text(fit))
                self._drawn = fit

    def above(self, text: str) -> None:
        """Writes text above the lines, where it stays; what has no end of line yet waits for it."""
        with self._lock:
            whole, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._write(f"{_back_over(self._drawn)}{whole}\n{_text(self._drawn)}")

    def close(self) -> None:
        """Takes the lines away."""
        with self._lock:
            self._write(_back_over(self._drawn) + self._begun)
            self._drawn, self._begun = [], ""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this lasts, whatever this process prints goes above the lines; they are gone afterwards."""
        above = _Above(self, self._stream)
        with redirect_stdout(above), redirect_stderr(above):
            try:
                yield
            finally:
                self.close()

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"  # signs that a terminal of old lacks become question marks
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


class _Above(io.TextIOBase):
    """A stream into a screen's `above`."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen, self._stream = screen, stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there, of which a class cannot be given one
        return self._stream.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        self._screen.above(text)
        return len(text)


def _beginning(line: str, columns: int) -> str:
    """As much of a line as these columns of a terminal hold."""
    taken, line = 0, line.expandtabs()
    for place, sign in enumerate(line):
        taken += _width(sign)
        if taken > columns:
            return line[:place]
    return line


def _width(sign: str) -> int:
    """Columns of a sign: two of a wide one, of Chinese as of pictures, none of one that joins the sign before."""
    if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _back_over(lines: Sequence[str]) -> str:
    """Control codes (ECMA-48) that go up to the first of the lines and clear all from there."""
    return f"\r\x1b[{len(lines)}A\x1b[J" if lines else ""
