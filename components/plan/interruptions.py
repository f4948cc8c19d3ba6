"""Tasks that begin anew whenever they are interrupted: how much is done again, and when the last of many ends.

Interruptions come as a Poisson process. Of a task that takes `hours` alone and is interrupted `rate` times an hour,
a = rate·hours interruptions would come in its time, and it ends at T >= hours, the first time that none has come for
so long.
"""

from __future__ import annotations

import math

import numpy as np

HOPELESS = 5  # interruptions in a task's time: hardly one attempt in 150 ends well
CELLS = 64  # of a task's own time, in which the last one's end is computed
LEFT = 1e-6  # expected tasks still running at which no more of them is counted
SMALL = 1e-4  # below it the first terms of a series have all digits, and a difference has not


def again(a: float) -> float:
    """The mean share of a task's own time that is lost and done again, (exp(a) - 1) / a - 1.

    Args:
        a: interruptions in the time that the task takes alone, `HOPELESS` at most.
    """
    return a / 2 + a * a / 6 if a < SMALL else math.expm1(a) / a - 1


def slowest(hours: float, rate: float, count: int) -> float:
    """Mean hours until the last of `count` such tasks ends; inf where hardly one does.

    S(t) = P(T > t) is 1 up to `hours`; later the task was first interrupted in its first `hours`, after u, and the
    rest is as from its beginning: S(t) = ∫ rate·exp(-rate·u)·S(t - u) du over u from 0 to `hours`. The mean is
    ∫ 1 - (1 - S(t))^count dt. Both integrals are sums of trapezoids over `CELLS` cells of the task's own time.
    """
    a = rate * hours
    if a > HOPELESS:
        return math.inf
    edges = np.exp(-a * np.arange(CELLS + 1) / CELLS)
    interrupted = -np.expm1(-a / CELLS) * edges[:-1]  # for the first time in each cell
    running = np.ones(CELLS)  # mean of S in each of the cells before, the latest first
    left, total = -math.expm1(-a), 1.0  # S at a cell's beginning; the mean in units of `hours`
    while count * left > LEFT:
        before = left
        # The latest cell's mean is half of what is sought.
        known = interrupted[1:] @ running[:-1] + interrupted[0] * before / 2
        left = float(known / (1 - interrupted[0] / 2))
        running = np.concatenate([[(before + left) / 2], running[:-1]])
        total += (_any(before, count) + _any(left, count)) / 2 / CELLS
    return hours * total


def _any(running: float, count: int) -> float:
    """The probability that any of `count` tasks is still running, if each is with the probability `running` < 1."""
    return -math.expm1(count * math.log1p(-running))
