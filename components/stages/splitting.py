"""Into how many shards an iteration's prompts are split, so that each takes about a given time.

A shard that is lost, as with a spot machine, is drawn again from its beginning: its time is what the loss costs. Each
also loads the models once, so very short ones waste time.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from components.prompts.config import PromptsConfig

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "shards"  # of `history`, with `prompts.shards: auto`

logger = logging.getLogger(__name__)


def how_many(settings: PromptsConfig, history: pd.DataFrame | None) -> int:
    """Shards of the next iteration.

    Args:
        settings: with `shards: auto`, the number follows from `history`.
        history: rows of the iterations so far, also of runs that this one continues from; None before the first.
    """
    if settings.shards != "auto":
        return settings.shards
    most = settings.shards_at_most
    seconds = seconds_per_prompt(history)
    if seconds is None:
        return most
    minutes = settings.per_iteration * seconds / 60
    wanted = max(1, math.ceil(minutes / settings.shard_minutes))
    if wanted > most:
        logger.warning(
            "prompts.shard_minutes: %d shards take about %.3g minutes each, and %d would take %.3g. "
            "Raise prompts.most_shards (%d).",
            *(most, minutes / most, wanted, settings.shard_minutes, settings.most_shards),
        )
    return min(wanted, most)


def seconds_per_prompt(history: pd.DataFrame | None) -> float | None:
    """What a prompt took to be answered and scored in the last iteration's slowest tasks, loading of models included.

    None without an iteration, or where the last one did not count its shards.
    """
    if history is None or not len(history) or COLUMN not in history:
        return None
    last = history.iloc[-1]
    if math.isnan(last[COLUMN]) or not last["prompts"]:
        return None
    return float((last["seconds_generate"] + last["seconds_score"]) * last[COLUMN] / last["prompts"])
