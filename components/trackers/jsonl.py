"""A JSONL file in a folder of one's own; that beside the weights is written in any case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from components.config.paths import LocalPath, user_path
from components.store.files import keep_lines
from components.trackers import Row, TrackedRun, Tracker, TrackerError


class Jsonl(Tracker):
    """Writes a JSONL file for each run into a folder of your own."""

    name: Literal["jsonl"] = "jsonl"
    folder: LocalPath = Field(description="directory, made if it is not there; a file for each run")

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str:
        """A line for each row."""
        path = user_path(self.folder, "folder", TrackerError).absolute() / f"{run.id}.jsonl"
        keep_lines(path, [row.line for row in rows])
        return str(path)
