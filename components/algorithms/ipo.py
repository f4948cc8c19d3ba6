"""Iterative IPO (Azar et al., arXiv 2310.12036) on the best and the worst of K fresh responses.

Like `dpo`, with a squared loss: the margin over the reference is drawn to 1/(2·beta) instead of growing without bound.
`beta` is the paper's tau.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from components.algorithms import Algorithm, Group, best_and_worst
from components.algorithms.dpo import margin, preferred

if TYPE_CHECKING:
    from torch import Tensor


class Ipo(Algorithm):
    """IPO's hyper-parameter."""

    name: Literal["ipo"] = "ipo"
    beta: PositiveFloat = 0.1

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """The best and the worst of each prompt's responses."""
        return best_and_worst(win_rate)

    def informative(self, win_rate: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Prompts of whose pair one was preferred."""
        return win_rate[:, 0] > win_rate[:, 1]

    def loss(self, group: Group) -> Tensor:
        """[margin - 1/(2·beta)]² for both of a pair, (n, 2); 0 where the two tie, as neither was preferred."""
        loss = (margin(group) - 1 / (2 * self.beta)).square() * preferred(group)
        return loss[:, None].expand(-1, 2)
