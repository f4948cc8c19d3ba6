"""An earlier run's `history`, read from a CSV file and checked."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.schema import cut
from components.config.steps import SHARDED, TIMED
from components.config.yaml_scalars import plain_number
from components.plan.models import PlanError
from components.plan.splitting import COLUMN, LOADING

if TYPE_CHECKING:
    import pandas as pd

BRANCH = ["arm", "seed"]  # columns of a comparison's table that tell whose row it is
ITERATION, WIN_RATE = "iteration", "win_rate"
OPTIONAL = (COLUMN, LOADING, WIN_RATE)  # columns that may be missing, or empty in some rows
LARGEST = 1e15
NUMBER, WHOLE = (f"is no {kind} to {LARGEST:g}" for kind in ("number from 0", "whole number from 1"))
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
    needed = [ITERATION, "prompts", *(f"seconds_{kind}" for kind in TIMED)]
    if missing := [name for name in needed if name not in history]:
        raise PlanError(f"--history {path}: has no column {missing[0]}. Write Run(...).data.history to it.")
    if not len(history):
        raise PlanError(f"--history {path}: has no rows. Write Run(...).data.history to it, after an iteration.")
    _require_one_run(path, history)
    known = [name for name in (*needed, *OPTIONAL) if name in history]
    written = history[known]
    history = history.assign(**{name: written[name].map(_number).astype(float) for name in known})
    for name in known:
        found, count = history[name], name in (ITERATION, "prompts", COLUMN)
        good = (found >= 1) & (found % 1 == 0) if count else found >= 0
        _require(path, written[name], good | written[name].isna() & (name in OPTIONAL), WHOLE if count else NUMBER)
    _require_order(path, history)
    if COLUMN in history:
        possible = ~(history[COLUMN] > history["prompts"])
        _require(path, written[COLUMN], possible, "is more shards than prompts, and each shard has one")
    if LOADING in history:
        possible = ~(history[LOADING] > (1 + ROUNDED) * sum(history[f"seconds_{kind}"] for kind in SHARDED))
        _require(path, written[LOADING], possible, "is more than what generate and score took together")
    return history


def _number(text: str | float) -> float:
    """NaN for an empty cell, what is no finite number in ASCII digits, or one larger than any of a run."""
    found = plain_number(text.strip(" ")) if isinstance(text, str) else math.nan
    return found if abs(found) <= LARGEST else math.nan


def _require(path: Path, written: pd.Series[str], good: pd.Series[bool], problem: str) -> None:
    """Raises PlanError for the first cell of a column that is not good, by row and by what is written there."""
    for row, (text, fine) in enumerate(zip(written, good, strict=True), start=1):
        if not fine:
            shown = cut(repr(text)) if isinstance(text, str) else "an empty cell or nan"
            raise PlanError(
                f"--history {path}: column {written.name}, row {row} below the names: {shown} {problem}. Correct it, "
                "or write the file anew."
            )


def _require_one_run(path: Path, history: pd.DataFrame) -> None:
    """Raises PlanError for the table of a comparison."""
    branch = [name for name in BRANCH if name in history]
    if branch and len(history[branch].drop_duplicates()) > 1:
        raise PlanError(
            f"--history {path}: holds several runs, and their times would be mixed. Leave the rows of one of them, as "
            "of one arm and seed of a comparison's table."
        )


def _require_order(path: Path, history: pd.DataFrame) -> None:
    """Raises PlanError for rows in another order than their iterations', or of runs one below the other."""
    numbers = history[ITERATION].tolist()
    for row, (before, number) in enumerate(pairwise(numbers), start=2):
        if number <= before:
            raise PlanError(
                f"--history {path}: column {ITERATION}, row {row} below the names: {number:g} comes after {before:g}, "
                "and iterations must rise. Sort the rows or, if the file holds several runs, leave those of one."
            )
