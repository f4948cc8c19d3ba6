"""Trackio: a database on this machine that `trackio show` opens, or a Space on Hugging Face.

The client keeps what it cannot send, and sends it with the run's next iteration from the same machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.trackers import Row, TrackedRun, Tracker, client


class Trackio(Tracker):
    """Sends figures to a database on this machine, or to a Space on Hugging Face."""

    name: Literal["trackio"] = "trackio"
    project: str = Field("wind", description="that `trackio show` opens")
    space_id: str | None = Field(None, description="OWNER/SPACE; absent: TRACKIO_SPACE_ID, or the folder TRACKIO_DIR")
    private: bool = Field(True, description="a Space that is made is private")

    def check(self, folder: Path | None) -> None:
        """See `Tracker`."""
        del folder  # the client has one of its own, in which `trackio show` looks
        client("trackio", self.name)

    def failures(self) -> tuple[type[Exception], ...]:
        """See `Tracker`."""
        return (ValueError, OSError, sqlite3.Error)

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str | None:
        """A step for each iteration, and the settings with the first."""
        trackio = client("trackio", self.name)
        opened = trackio.init(
            project=self.project,
            name=run.name,
            space_id=self.space_id,
            private=self.private if self.space_id else None,
            config=dict(run.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        last = opened._initial_last_step or 0  # the client has no public name for the last step it found
        for row in rows:
            if row.iteration > last:
                opened.log(row.figures, step=row.iteration)
        trackio.finish()
        return str(opened.url) if opened.url else f"trackio show --project {self.project}"
