"""An earlier run's `history`, read from a CSV file and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.steps import SHARDED, TIMED
from components.plan.models import PlanError
from components.plan.splitting import COLUMN, LOADING

if TYPE_CHECKING:
    import pandas as pd

BRANCH = ["arm", "seed"]  # columns of a comparison's table that tell whose row it is
ITERATION, WIN_RATE = "iteration", "win_rate"
LARGEST = 1e15
ROUNDED = 1e-6  # of seconds, as a share: figures of a file have not all digits


def read(path: Path) -> pd.DataFrame:
    """One run's history, with prompts and times as numbers.

    Raises PlanError for a file that is none, holds several runs, or figures that no run has.
    """
    import pandas as pd

    try:
        history = pd.read_csv(path, dtype=str, compression=None)
    except (OSError, ValueError) as error:  # pandas' own errors of parsing are ValueErrors
        raise PlanError(
            f"--history {path}: cannot be read ({error}). Write it with Run(...).data.history.to_csv, and not "
            "compressed."
        ) from error
    if not isinstance(history.index, pd.RangeIndex):  # else the first fields become one, and all others move
        raise PlanError(f"--history {path}: has rows with more fields than the first line has names. Write it anew.")
    times = [f"seconds_{kind}" for kind in TIMED]
    needed = [ITERATION, "prompts", *times]
    if missing := [name for name in needed if name not in history]:
        raise PlanError(f"--history {path}: has no column {missing[0]}. Write Run(...).data.history to it.")
    known = [name for name in (*needed, COLUMN, LOADING, WIN_RATE) if name in history]
    written = history[known].notna()
    history = history.assign(**{name: history[name].map(_number).astype(float) for name in known})
    _require_one_run(path, history)
    found = history[needed]
    if not len(history) or bool((found.isna() | (found < 0)).any(axis=None)) or not (found["prompts"] > 0).all():
        raise PlanError(f"--history {path}: has no rows, or some without prompts and seconds. Write it anew.")
    _require_whole(path, history, [ITERATION, "prompts"])
    if COLUMN in history:
        _require_shards(path, history, written[COLUMN])
    if LOADING in history:
        _require_loading(path, history, written[LOADING])
    return history


def _number(text: str | float) -> float:
    """NaN for what is no finite number, or larger than any of a run."""
    try:
        found = float(text)
    except ValueError:
        return math.nan
    return found if abs(found) <= LARGEST else math.nan


def _require_one_run(path: Path, history: pd.DataFrame) -> None:
    """Raises PlanError for the table of a comparison, or of runs one below the other."""
    branch = [name for name in BRANCH if name in history]
    several = bool(branch) and len(history[branch].drop_duplicates()) > 1
    if several or (history[ITERATION].diff().iloc[1:] <= 0).any():
        raise PlanError(
            f"--history {path}: holds several runs, and their times would be mixed. Leave the rows of one of them, as "
            "of one arm and seed of a comparison's table."
        )


def _require_whole(path: Path, history: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if not ((history[name] >= 1) & (history[name] % 1 == 0)).all():
            raise PlanError(f"--history {path}: column {name} is to hold whole numbers from 1. Write it anew.")


def _require_shards(path: Path, history: pd.DataFrame, told: pd.Series[bool]) -> None:
    number = history[COLUMN]
    if not (~told | (number >= 1) & (number % 1 == 0)).all():
        raise PlanError(f"--history {path}: has shards that are no whole number from 1. Write it anew.")
    if (number > history["prompts"]).any():
        raise PlanError(f"--history {path}: has more shards than prompts, and each shard has one. Write it anew.")


def _require_loading(path: Path, history: pd.DataFrame, told: pd.Series[bool]) -> None:
    load, whole = history[LOADING], sum(history[f"seconds_{kind}"] for kind in SHARDED)
    if not (~told | (load >= 0) & (load <= whole * (1 + ROUNDED))).all():
        raise PlanError(
            f"--history {path}: {LOADING} is to be from 0 to what generate and score took together. Write it anew."
        )
