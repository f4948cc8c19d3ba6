"""A command in a pseudo-terminal, and the screen that its user would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CODE = re.compile(r"\x1b\[(\d*)([A-Za-z])")


class Shown:
    """What a terminal shows that never scrolls: `rows` from the top, after each piece of output."""

    def __init__(self) -> None:
        self.rows, self.row, self.column = [""], 0, 0

    def feed(self, text: str) -> None:
        """Takes in whole control codes: carriage return, line feed, up, clear to the end of line or screen, colours."""
        at = 0
        while at < len(text):
            if code := CODE.match(text, at):
                self._obey(code[2], int(code[1] or 0))
                at = code.end()
                continue
            self._put(text[at])
            at += 1

    def _obey(self, letter: str, number: int) -> None:
        if letter == "A":
            self.row = max(self.row - max(number, 1), 0)
        elif letter == "J":
            del self.rows[self.row + 1 :]
            self.rows[self.row] = self.rows[self.row][: self.column]
        elif letter == "K":
            self.rows[self.row] = self.rows[self.row][: self.column]
        else:
            assert letter == "m", letter

    def _put(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self.row += 1
            self.rows += [""] * (self.row + 1 - len(self.rows))
        else:
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + sign + row[self.column + 1 :]
            self.column += 1


class Terminal:
    """A process whose input and output are a terminal of some size."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], columns: int = 100, lines: int = 30
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        own = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, cwd=cwd, env={**own, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.output = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other side is closed
            while piece := os.read(self._ours, 65536):
                self.output += piece

    @property
    def text(self) -> str:
        """All output so far, control codes included."""
        return self.output.decode(errors="replace")

    def wait(self, seconds: float) -> int:
        """The status that the process ends with."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        os.close(self._ours)
        return status

    def screen(self) -> list[str]:
        """The rows that a user sees at last."""
        shown = Shown()
        shown.feed(self.text)
        return [row.rstrip() for row in shown.rows]
