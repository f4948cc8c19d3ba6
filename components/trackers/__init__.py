"""Experiment trackers: each one short module, found by its name in the config.

A run tells them after each iteration, from a process of its own each time: a tracker opens the tracked run, sends what
that lacks, and closes it.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from components.config import extras
from components.config.errors import UserError
from components.config.paths import user_path
from components.config.schema import Section

Setting = str | int | float | bool
INSTALL = extras.install("trackers")


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty. Write a name, or leave the key out.")
    return text


Name = Annotated[str, AfterValidator(_name)]  # of what a tracker keeps runs in


class TrackerError(UserError):
    """A tracker that cannot be used; that of a check begins with a key of the tracker's own section."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker shows as one run. A run that was resumed stays the same one."""

    name: str  # FLOW/RUN, of a comparison with the arm and seed behind it
    settings: Mapping[str, Setting]  # of the config, by dotted key
    folder: Path | None  # for files, beside the weights; None where those lie in an object store
    over: bool = False  # whether the last iteration is among the rows

    @property
    def id(self) -> str:
        """The name as file names and addresses take it."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class Row:
    """A row of `history`."""

    iteration: int  # 1-based, over all runs that this one continues from
    values: Mapping[str, str | int | float | None]  # by column; None for what was not measured

    @property
    def figures(self) -> dict[str, float]:
        """The numbers that were measured, the iteration among them."""
        numbers = {name: value for name, value in self.values.items() if isinstance(value, int | float)}
        return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}

    @property
    def line(self) -> str:
        """JSON in one line, with null for what was not measured or is not finite."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.values.items()}
        return json.dumps(finite, allow_nan=False)


class Tracker(Section, ABC):
    """Settings of one tracker, and how it is told."""

    name: str

    def check(self, folder: Path | None) -> None:
        """Raises TrackerError when what it needs is not here; `folder` as in TrackedRun."""

    def failures(self) -> tuple[type[Exception], ...]:
        """What its client raises when files or a server cannot be reached."""
        return (OSError,)

    @abstractmethod
    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str | None:
        """Opens the run, made if it is new, sends those of its rows that it lacks, and closes it.

        Args:
            run: which.
            rows: all of the run so far, in order; none when it begins.

        Returns:
            Where to look at the run, if there is an address or a path.
        """


def client(package: str, tracker: str) -> Any:
    """The module of a tracker's client. Raises TrackerError if it is not installed."""
    try:
        found = importlib.import_module(package)
        if found.__spec__ is None or found.__spec__.origin is None:  # a folder of that name, such as W&B's own ./wandb
            raise ImportError("only a folder of that name is there")
    except ImportError as error:
        raise TrackerError(
            f"name: {tracker!r} needs the package {package.partition('.')[0]}, which cannot be used ({error}). "
            f"Run {INSTALL}, or remove the tracker."
        ) from error
    return found


def place(folder: str | None, beside: Path | None, inside: str) -> Path:
    """The folder that the config names, or `inside` of the one beside the weights.

    Raises TrackerError where there is neither.
    """
    if folder is not None:
        return user_path(folder, "folder", TrackerError)
    if beside is None:
        raise TrackerError(
            "folder: is required, as the weights lie in an object store and a task's own disk may go with it. "
            "Name a directory that all tasks have."
        )
    return beside / inside


def without_password(text: str) -> str:
    """A text whose addresses show no user and no password: `https://user:word@host` as `https://…@host`."""
    return re.sub(r"(?<=://)[^/@\s]+@", "…@", text)


def reason(error: Exception) -> str:
    """What an error says, within a sentence: in one line, without its SQL, and without passwords."""
    text = str(error).partition("\n[SQL:")[0]  # as SQLAlchemy goes on
    return without_password(" ".join(text.split())).rstrip(".")
