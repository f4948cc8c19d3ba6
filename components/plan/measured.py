"""GPU hours of a run from what an earlier one of the same kind took, its `history` as a CSV file.

Of parallel shards a history has the slowest one's seconds. That is taken to be one of those with the most prompts, as
are all others with as many, so what is found is rather too much than too little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from components.config.steps import SHARDED
from components.plan.history import WIN_RATE
from components.plan.models import PlanError
from components.plan.splitting import COLUMN, LOADING, SECONDS, largest
from components.run_config import RunConfig

if TYPE_CHECKING:
    import pandas as pd

SHARDS = "--history-shards"
NOTHING = 0.01  # seconds of an iteration's generate and score: loading a policy alone takes longer


def gpu_hours(
    config: RunConfig, planned: Mapping[str, float], history: pd.DataFrame, shards: int | None = None
) -> dict[str, float]:
    """The GPU hours of each kind of step in the place of those planned, without `loading`.

    Those of `start` stay, which no history has, and those of `evaluate` where the earlier run evaluated nothing. It is
    taken to have had this config's models, lengths and GPUs; it may have had another number of prompts, iterations and
    shards.

    Args:
        config: of the run that is planned.
        planned: by kind of step.
        history: of the earlier one, as `history.read` gives it.
        shards: of its iterations, which tell their own if they were split automatically.

    Raises:
        PlanError: the number of shards is not known, more than the prompts, or given where it counts for nothing; the
            history is of an on-policy algorithm, and this config's is none.
    """
    t, n = config.iterations, config.prompts.per_iteration
    prompts = history["prompts"]
    found, counted, load = dict(planned), _shards(config, history, shards), _loading(history)
    most = [largest(int(p), int(s)) for p, s in zip(prompts, np.broadcast_to(counted, len(prompts)), strict=True)]
    if not config.algorithm.on_policy and history[SECONDS].sum(axis=1).min() < NOTHING:
        raise PlanError(
            f"--history: generate and score took no time in it, as with an algorithm that draws in training; "
            f"{config.algorithm.name} draws before. Give the history of a run of {config.algorithm.name} or its like."
        )
    for kind in SHARDED:
        working = history[f"seconds_{kind}"] - load[kind].fillna(0.0)
        working *= not config.algorithm.on_policy  # whose training does this, and these steps nothing
        found[kind] = float((working * prompts / most).sum()) * config.num_gpus(kind)
    found["train"] = float(history["seconds_train"].sum()) * config.num_gpus("train") * config.training.nodes
    for kind in (*SHARDED, "train"):
        found[kind] *= t * n / float(prompts.sum()) / 3600
    if evaluated(history):
        rows = history[history[WIN_RATE].notna()] if WIN_RATE in history else history
        each = float(rows["seconds_evaluate"].mean())
        found["evaluate"] = each * config.num_gpus("evaluate") * math.ceil(t / config.evaluation.every) / 3600
    return found


def loading(history: pd.DataFrame) -> dict[str, float]:
    """Seconds in which each task of a kind loads models, however few prompts it has: the mean of those that are told.

    A history tells them of generate and score together, and each is given its share by what it took altogether.
    """
    return {kind: float(found.mean()) for kind, found in _loading(history).items() if found.notna().any()}


def evaluated(history: pd.DataFrame) -> bool:
    """Whether the history tells what an evaluation took."""
    return WIN_RATE not in history or bool(history[WIN_RATE].notna().any())


def _loading(history: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Of each iteration; NaN where that is not told."""
    seconds = {kind: history[f"seconds_{kind}"] for kind in SHARDED}
    if LOADING not in history:
        return {kind: taken * math.nan for kind, taken in seconds.items()}
    both = sum(seconds.values())
    share = (history[LOADING] / both).clip(upper=1.0)  # NaN where nothing was drawn
    return {kind: taken * share for kind, taken in seconds.items()}


def _shards(config: RunConfig, history: pd.DataFrame, given: int | None) -> pd.Series[float] | int:
    """Of each iteration."""
    if config.algorithm.on_policy:
        if given is not None:
            raise PlanError(f"{SHARDS}: {config.algorithm.name} draws in training, not in shards. Leave it out.")
        return 1
    known = history.get(COLUMN)
    if known is not None and known.notna().all():
        if given is not None:
            raise PlanError(f"{SHARDS}: --history tells how many there were in each iteration. Leave it out.")
        return known
    if given is None:
        raise PlanError(
            f"--history does not say how many there were of prompts.shards, which only shards: auto counts. Give the "
            f"number with {SHARDS}."
        )
    if given > (fewest := int(history["prompts"].min())):
        raise PlanError(
            f"{SHARDS}: {given} is more than the {fewest} prompts of an iteration of --history, and each shard has "
            "one. Give prompts.shards of that run."
        )
    return given if known is None else known.fillna(given)
