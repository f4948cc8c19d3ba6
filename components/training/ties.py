"""Prompts whose responses all tie: the judge tells none of them apart, and training has no preference to learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.algorithms import leave_one_out

if TYPE_CHECKING:
    from components.config.sections import GenerationConfig
    from components.judges import Judgement

EQUAL = 1e-9  # between win rates that only rounding tells apart
MOST = 0.5  # of the trained prompts
# Two responses of a reference that is right once in twenty tie nine times in ten, and of eight responses to a prompt
# one is right then as often as not.
MOST_AT_START = 0.9


def share(preference: NDArray[np.float64]) -> float:
    """Share of the prompts whose K responses have the same win rate.

    Args:
        preference: (n, K, K), P(y_i > y_j), K >= 2.
    """
    win_rate = leave_one_out(preference)
    return float((np.ptp(win_rate, 1) < EQUAL).mean())


def at_start(judgement: Judgement) -> str:
    """What the verdicts on the reference's held-out responses foretell, with a remedy; empty if nothing.

    Of one response to each prompt no two are compared: then only scores that are all the same say something.
    """
    n, m = judgement.reward.shape
    if m > 1 and (tied := share(judgement.preference)) > MOST_AT_START:
        which = "every held-out prompt" if tied == 1 else f"{math.floor(100 * tied)}% of the held-out prompts"
        return f"judge: all {m} responses of the reference to {which} tie. {_CONSEQUENCE}"
    if m == 1 and n > 1 and np.ptp(judgement.reward) == 0:
        score = judgement.reward[0, 0]
        return f"judge: every response of the reference to the held-out prompts scores {score:g}. {_CONSEQUENCE}"
    return ""


_CONSEQUENCE = (
    "If those that training draws tie as well, it learns nothing: `history` has their share as `tied`. "
    "See whether the judge works, let it give finer scores, or take easier or harder prompts."
)


def in_training(tied: float, generation: GenerationConfig, *, steps: bool, fresh: bool = False) -> str:
    """What a share of tied prompts means for an iteration, with a remedy; empty unless they are most.

    Args:
        tied: share of the iteration's prompts.
        generation: how the responses were drawn.
        steps: whether training made any optimiser step.
        fresh: whether the algorithm drew the responses itself, a fixed number of them.
    """
    if not tied > MOST:
        return ""
    if tied == 1:
        result = (
            "training had no preference to learn" if steps else "training made no step and left the policy as it was"
        )
        found = f"All responses to every prompt tie: {result}."
    else:
        found = (
            f"All responses to {math.floor(100 * tied)}% of the prompts tie: there was no preference to learn in them."
        )
    more = "" if fresh else f"raise generation.responses ({generation.responses}), "
    return (
        f"{found} Let the judge give finer scores, take easier or harder prompts, {more}or raise "
        f"generation.temperature ({generation.temperature:g})."
    )
