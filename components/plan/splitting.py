"""Into how many shards an iteration's prompts are split, so that each takes about a given time.

A shard that is lost, as with a spot machine, is drawn again from its beginning: its time is what the loss costs. Each
also loads the models once, so very short ones waste time. A task of one shard of n prompts takes

    t = loading + n / shards · seconds per prompt

of which the iteration before tells both. Only of a run's first one they are a little low: there the policy is the
reference, which is then not loaded and read for itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.config.steps import SHARDED
from components.prompts.config import PromptsConfig

if TYPE_CHECKING:
    import pandas as pd

COLUMN, LOADING = "shards", "seconds_loading"  # of `history`, with `prompts.shards: auto`
SECONDS = [f"seconds_{kind}" for kind in SHARDED]

LARGEST = 1e15  # shards; a time for each can be arbitrarily short

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """What a shard's tasks, generate and score together, take."""

    loading: float  # seconds, of any shard
    prompt: float  # seconds each


def loading(kind: str) -> str:
    """The name of what a task of this kind took to load models, beside the seconds that it took altogether."""
    return f"loading_{kind}"


def columns(shards: int, seconds: Mapping[str, float]) -> dict[str, float]:
    """What `history` tells of an iteration's shards; `seconds` are the slowest one's."""
    return {COLUMN: shards, LOADING: sum(seconds.get(loading(kind), 0.0) for kind in SHARDED)}


def of_a_shard(history: pd.DataFrame | None) -> pd.DataFrame | None:
    """A history whose seconds are sums over shards, with means over them instead."""
    if history is None or COLUMN not in history:
        return history
    return history.assign(**{name: history[name] / history[COLUMN] for name in (*SECONDS, LOADING) if name in history})


def how_many(settings: PromptsConfig, history: pd.DataFrame | None) -> int:
    """Shards of the next iteration.

    Args:
        settings: with `shards: auto`, the number follows from `history`.
        history: rows of the iterations so far, also of runs that this one continues from; None before the first.
    """
    if settings.shards != "auto":
        return settings.shards
    found = pace(history)
    if found is None:
        return settings.shards_at_most
    return automatic(settings, settings.per_iteration * found.prompt, found.loading)


def automatic(settings: PromptsConfig, work: float, loading: float) -> int:
    """How many shards let each take `shard_minutes`, at most `shards_at_most`.

    Each is given as much work as loading takes, if that is more than half of the minutes: smaller ones would do little
    else.

    Args:
        settings: with `shards: auto`.
        work: seconds of one task that had all prompts, without loading models.
        loading: seconds of any task.
    """
    most, seconds = settings.shards_at_most, 60 * settings.shard_minutes
    if loading > seconds / 2:
        logger.warning(
            "prompts.shard_minutes: loading the models takes %.3g minutes of each task, and %.3g are given for all. "
            "Tasks take about %.3g, so that half of that is work. Raise it to more.",
            *(loading / 60, settings.shard_minutes, loading / 30),
        )
    left = max(seconds - loading, loading)
    wanted = max(1, math.ceil(min(work / left, LARGEST)))
    if wanted > most:
        logger.warning(
            "prompts.shard_minutes: %d shards take about %.3g minutes each, and %d would take %.3g. "
            "Raise prompts.most_shards (%d).",
            *(most, (loading + work / most) / 60, wanted, (loading + left) / 60, settings.most_shards),
        )
    return min(wanted, most)


def largest(prompts: int, shards: int) -> int:
    """Prompts of the largest of so many shards."""
    return math.ceil(prompts / shards)


def pace(history: pd.DataFrame | None) -> Pace | None:
    """What the last iteration's slowest tasks took; all of it for its prompts where loading was not told apart.

    They are taken to have had the most prompts: of others nothing is known.
    None without an iteration, or where the last one did not count its shards.
    """
    if history is None or not len(history) or COLUMN not in history:
        return None
    last = history.iloc[-1]
    if math.isnan(last[COLUMN]) or not last["prompts"]:
        return None
    load = 0.0 if math.isnan(told := last.get(LOADING, math.nan)) else float(told)
    return Pace(load, float((last[SECONDS].sum() - load) / largest(int(last["prompts"]), int(last[COLUMN]))))
