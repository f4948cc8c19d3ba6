"""Trackio: a database on this machine that `trackio show` opens, or a Space on Hugging Face.

The client keeps what it cannot send, and sends it with the run's next iteration from the same machine.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from components.trackers import Name, Row, TrackedRun, Tracker, client, reason

# Ends of names that the client refuses, as files of another project have them, and a begin that it keeps for itself.
ENDS = (
    "_system",
    "_configs",
    "_traces",
    "_artifacts",
    "_artifact_versions",
    "_artifact_aliases",
    "_run_artifact_links",
)
BEGIN = "registry-"


class Trackio(Tracker):
    """Sends figures to a database on this machine, or to a Space on Hugging Face."""

    name: Literal["trackio"] = "trackio"
    project: Name = Field("wind", description="that `trackio show` opens")
    space_id: Name | None = Field(None, description="OWNER/SPACE; absent: TRACKIO_SPACE_ID, or the folder TRACKIO_DIR")
    private: bool = Field(True, description="a Space that is made is private")

    @field_validator("project")
    @classmethod
    def _is_its_own(cls, name: str) -> str:
        # The client leaves other signs out, and what is left may be another's project.
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"{name!r} holds more than letters, digits, - and _, which Trackio leaves out. Use those.")
        if name.startswith(BEGIN) or re.fullmatch(f".+(?:{'|'.join(ENDS)})", name):
            raise ValueError(
                f"{name!r} is kept by Trackio for itself. Choose one that neither begins with {BEGIN} nor ends with "
                f"{', '.join(ENDS[:-1])} or {ENDS[-1]}."
            )
        return name

    @field_validator("space_id")
    @classmethod
    def _is_a_space(cls, name: str | None) -> str | None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"{name!r} cannot name a Space ({reason(error)}). Write OWNER/SPACE.") from error
        return name

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
