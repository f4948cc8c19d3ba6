"""What tasks tell the terminal that started them, beside the lines of their logs: records in a file that both know."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORTS = "WIND_REPORTS"  # environment variable: that file; without it nobody reads
INTERVAL = 0.5  # seconds between a task's records of one piece of work


class Reporter:
    """Writes the records of one task, if anybody reads them."""

    def __init__(self, task: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: task is `STEP/ID`; clock gives the time in seconds."""
        path = os.environ.get(REPORTS)
        self._path, self._task, self._clock = Path(path) if path else None, task, clock
        self._due = -INTERVAL
        self._torn = False  # whether the last record may have been written in part

    @property
    def is_read(self) -> bool:
        """Whether anybody reads the records."""
        return self._path is not None

    def place(self, **facts: Any) -> None:
        """Where the task stands in its run; see `components.reporting.live.Place`."""
        self._write({"place": facts})

    def progress(self, description: str, done: int, total: int, elapsed: float, figures: Mapping[str, float]) -> None:
        """How far a piece of work is, `elapsed` seconds after its beginning; told twice a second at most."""
        if done < total and self._clock() < self._due:
            return
        self._due = self._clock() + INTERVAL
        plain = {name: float(value) for name, value in figures.items()}
        self._write({"progress": [description, int(done), int(total), elapsed, plain]})

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        line = json.dumps({"task": self._task, **record}) + "\n"
        # A disk that is full, or a reader that is gone, must not end the work that is only being watched.
        begin, self._torn = "\n" if self._torn else "", True
        with suppress(OSError):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(begin + line)
            self._torn = False


class Reader:
    """Reads such a file while others write it."""

    def __init__(self, path: Path) -> None:
        """Makes the file."""
        path.touch()
        self._path, self._at = path, 0

    def new(self) -> list[dict[str, Any]]:
        """The records written since the last call, but for those that a full disk cut off; none of a lost file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                whole, end, _ = file.read().rpartition(b"\n")  # the last line may still be on its way
        except OSError:
            return []
        self._at += len(whole) + len(end)
        return [record for line in whole.splitlines() if (record := _record(line)) is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:  # also of bytes that are no UTF-8
        return None
    return found if isinstance(found, dict) and "task" in found else None
