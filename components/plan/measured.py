"""GPU hours of a run from what an earlier one of the same kind took, its `history` as a CSV file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.steps import SHARDED, TIMED
from components.plan.models import PlanError
from components.run_config import RunConfig

if TYPE_CHECKING:
    import pandas as pd

SHARDS = "--history-shards"
BRANCH = ["arm", "seed"]  # columns of a comparison's table that tell whose row it is


def read(path: Path) -> pd.DataFrame:
    """One run's history. Raises PlanError for a file that is none, or holds figures that no run has."""
    import pandas as pd

    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors of parsing are ValueErrors
        raise PlanError(
            f"--history {path}: cannot be read ({error}). Write it with Run(...).data.history.to_csv."
        ) from error
    needed = ["prompts", *(f"seconds_{kind}" for kind in TIMED)]
    if missing := [name for name in needed if name not in history]:
        raise PlanError(f"--history {path}: has no column {missing[0]}. Write Run(...).data.history to it.")
    _require_one_run(path, history)
    history[needed] = known = history[needed].apply(pd.to_numeric, errors="coerce").replace(math.inf, math.nan)
    if not len(history) or bool((known.isna() | (known < 0)).any(axis=None)) or not (known["prompts"] > 0).all():
        raise PlanError(f"--history {path}: has no rows, or some without prompts and seconds. Write it anew.")
    if "shards" in history:
        told = history["shards"]
        history["shards"] = number = pd.to_numeric(told, errors="coerce")
        if not (told.isna() | (number >= 1) & (number % 1 == 0)).all():
            raise PlanError(f"--history {path}: has shards that are no whole number from 1. Write it anew.")
    return history


def _require_one_run(path: Path, history: pd.DataFrame) -> None:
    """Raises PlanError for the table of a comparison, or of runs one below the other."""
    branch = [name for name in BRANCH if name in history]
    several = bool(branch) and len(history[branch].drop_duplicates()) > 1
    if several or ("iteration" in history and history["iteration"].duplicated().any()):
        raise PlanError(
            f"--history {path}: holds several runs, and their times would be mixed. Leave the rows of one of them, as "
            "of one arm and seed of a comparison's table."
        )


def gpu_hours(
    config: RunConfig, planned: Mapping[str, float], history: pd.DataFrame, shards: int | None = None
) -> dict[str, float]:
    """The GPU hours of each kind of step in the place of those planned.

    Those of `start` stay, which no history has. The earlier run is taken to have had this config's models, lengths and
    GPUs; it may have had another number of prompts, iterations and shards.

    Args:
        config: of the run that is planned.
        planned: by kind of step.
        history: of the earlier one, as `read` gives it.
        shards: of its iterations, which tell their own if they were split automatically.

    Raises:
        PlanError: the number of shards is not known, or given beside a history that has it.
    """
    t, n = config.iterations, config.prompts.per_iteration
    prompts = float(history["prompts"].sum())
    seconds = {kind: history[f"seconds_{kind}"] for kind in TIMED}
    found, counted = dict(planned), _shards(config, history, shards)
    for kind in SHARDED:
        found[kind] = float((seconds[kind] * counted).sum()) * config.num_gpus(kind)
    found["train"] = float(seconds["train"].sum()) * config.num_gpus("train") * config.training.nodes
    for kind in (*SHARDED, "train"):
        found[kind] *= t * n / prompts / 3600
    evaluated = history[history["win_rate"].notna()] if "win_rate" in history else history
    each = float(evaluated["seconds_evaluate"].mean()) if len(evaluated) else 0.0
    found["evaluate"] = each * config.num_gpus("evaluate") * math.ceil(t / config.evaluation.every) / 3600
    return found


def _shards(config: RunConfig, history: pd.DataFrame, given: int | None) -> pd.Series[float] | int:
    """Of each iteration."""
    known = history.get("shards")
    if known is not None and known.notna().all():
        if given is not None:
            raise PlanError(f"{SHARDS}: --history tells how many there were in each iteration. Leave it out.")
        return known
    if config.algorithm.on_policy:
        return 1  # whose shards do nothing
    if given is None:
        raise PlanError(
            f"--history does not say how many there were of prompts.shards, which only shards: auto counts. Give the "
            f"number with {SHARDS}."
        )
    return given if known is None else known.fillna(given)
