"""GPU hours of a run from what an earlier one of the same kind took, its `history` as a CSV file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.steps import SHARDED
from components.plan.models import PlanError
from components.run_config import RunConfig

if TYPE_CHECKING:
    import pandas as pd

TIMED = ("generate", "score", "train", "evaluate")


def read(path: Path) -> pd.DataFrame:
    """Raises PlanError for a file that is no history."""
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
    history[needed] = history[needed].apply(pd.to_numeric, errors="coerce")
    bad = not len(history) or bool(history[needed].isna().any(axis=None)) or bool((history[needed] < 0).any(axis=None))
    if bad or not (history["prompts"] > 0).all():
        raise PlanError(f"--history {path}: has no rows, or some without prompts and seconds. Write it anew.")
    return history


def gpu_hours(config: RunConfig, planned: Mapping[str, float], history: pd.DataFrame) -> dict[str, float]:
    """The GPU hours of each kind of step in the place of those planned; those of `start` stay, which no history has.

    The earlier run is taken to have had this config's models, lengths, GPUs and, where it did not count them, shards;
    it may have had another number of prompts and iterations.
    """
    t, n = config.iterations, config.prompts.per_iteration
    prompts = float(history["prompts"].sum())
    seconds = {kind: history[f"seconds_{kind}"] for kind in TIMED}
    found = dict(planned)
    for kind in SHARDED:
        found[kind] = float((seconds[kind] * _shards(config, history)).sum()) * config.num_gpus(kind)
    found["train"] = float(seconds["train"].sum()) * config.num_gpus("train") * config.training.nodes
    for kind in (*SHARDED, "train"):
        found[kind] *= t * n / prompts / 3600
    evaluated = history[history["win_rate"].notna()] if "win_rate" in history else history
    each = float(evaluated["seconds_evaluate"].mean()) if len(evaluated) else 0.0
    found["evaluate"] = each * config.num_gpus("evaluate") * math.ceil(t / config.evaluation.every) / 3600
    return found


def _shards(config: RunConfig, history: pd.DataFrame) -> pd.Series[float] | int:
    """Of each iteration; of one that did not count them, the config's."""
    known, own = history.get("shards"), config.prompts.shards
    if own == "auto":
        if known is None or known.isna().any():
            raise PlanError("prompts.shards: auto, and --history does not say how many there were. Give that number.")
        return known
    return own if known is None else known.fillna(own)
