"""Weights & Biases, online or into a folder for `wandb sync`.

Key, server and proxy come from the environment or from `wandb login`, as the client documents.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from components.config.paths import LocalPath
from components.store.files import replacing
from components.trackers import Name, Row, TrackedRun, Tracker, TrackerError, client, place

# What is raised where the client's own service, a process beside the task, has died or is stuck: they have no base of
# their own, and no public names.
SERVICE_ERRORS = (
    ("wandb.sdk.mailbox.mailbox", "MailboxClosedError"),
    ("wandb.sdk.mailbox.mailbox_handle", "HandleAbandonedError"),
    ("wandb.sdk.mailbox.mailbox_handle", "ServerResponseError"),
    ("wandb.sdk.lib.service.service_connection", "WandbApiFailedError"),
    ("wandb.sdk.lib.service.service_token", "WandbServiceConnectionError"),
)
FORBIDDEN, LONGEST = frozenset("/\\#?%:"), 128  # signs and characters of a project's name, as its client has them
PATIENCE = 60.0  # seconds for the server to answer when a run is opened, and again when it is closed

logger = logging.getLogger(__name__)


class Wandb(Tracker):
    """Sends figures to Weights & Biases, or writes them into a folder for `wandb sync`."""

    name: Literal["wandb"] = "wandb"
    project: Name = Field("wind", description="made if it is new")
    entity: Name | None = Field(None, description="user or team; absent: the key's own")
    mode: Literal["online", "offline"] = Field("online", description="offline: into `folder`, without a key")
    folder: LocalPath | None = Field(None, description="for the client's files; absent: trackers beside the weights")

    @field_validator("project")
    @classmethod
    def _is_taken(cls, name: str) -> str:
        if found := sorted(set(name) & FORBIDDEN):
            raise ValueError(
                f"{name!r} holds {' '.join(found)}, which W&B takes in no project's name. Leave that out, and write a "
                "user or team as entity."
            )
        if len(name) > LONGEST:
            raise ValueError(f"{len(name)} characters are more than W&B takes. Use {LONGEST} or fewer.")
        return name

    def check(self, folder: Path | None) -> None:
        """See `Tracker`."""
        wandb = client("wandb", self.name)
        if self.mode == "offline":
            place(self.folder, folder, "")
        elif not wandb.login(prompt=False, verify=False):
            raise TrackerError(
                "mode: 'online' needs a key. Run `wandb login`, set WANDB_API_KEY, or use mode: offline."
            )

    def failures(self) -> tuple[type[Exception], ...]:
        """See `Tracker`."""
        of_service = [getattr(client(module, self.name), name) for module, name in SERVICE_ERRORS]
        return (client("wandb", self.name).Error, *of_service, OSError)  # a TimeoutError is an OSError

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str | None:
        """A step for each iteration. Nothing but figures and settings is sent: no output, code, host or packages."""
        wandb = client("wandb", self.name)
        lasts = self.mode == "offline" or self.folder or run.folder
        folder = place(self.folder, run.folder, "").absolute() if lasts else None
        # Without a server nobody tells what the run has already.
        noted = folder / "wandb" / f"{run.id}.last" if folder and self.mode == "offline" else None
        if noted is not None:
            noted.parent.mkdir(parents=True, exist_ok=True)
            last = _last(noted)
            rows = [row for row in rows if row.iteration > last]
            if last >= 0 and not rows:
                return str(noted.parent)
        with wandb.init(
            **{"project": self.project, "entity": self.entity, "id": run.id, "name": run.name, "resume": "allow"},
            **{"mode": self.mode, "dir": folder, "config": dict(run.settings), "settings": _settings(wandb)},
        ) as opened:
            for row in rows:
                if row.iteration >= opened.starting_step:  # what the server expects next, of a run that it has
                    opened.log(row.figures, step=row.iteration)
            address = str(opened.url) if self.mode == "online" else None
        if noted is None:
            return address
        with replacing(noted, noted.parent) as file:
            file.write(str(rows[-1].iteration if rows else 0).encode())
        return str(noted.parent)


def _last(noted: Path) -> int:
    """The last iteration that stands in W&B's folder; 0 if the run has begun, -1 if it has not or nobody knows.

    Raises OSError where the note cannot be opened.
    """
    if not noted.exists():
        return -1
    try:
        return int(noted.read_bytes())
    except ValueError:
        logger.warning(
            "trackers: %s does not hold the number of the last iteration that was written for W&B, so all of them are "
            "written again. `wandb sync` may then send some of them twice.",
            noted,
        )
        return -1


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
        **{"console": "off", "save_code": False, "disable_git": True, "silent": True},
        **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True},
        **{"x_save_requirements": False, "init_timeout": PATIENCE},
        **{"finish_timeout": PATIENCE, "finish_timeout_raises": True},
    )
