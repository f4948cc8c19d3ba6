"""SPPO: self-play preference optimisation (Wu et al., arXiv 2405.00675).

WIND's squared risk without the reference (beta = 0) and with c = 1/2, on the best and the worst of K responses. Two
differences to the paper: its loss is ours times eta², which an adaptive optimiser does not notice, and its win rate
counts each response's tie with itself, where ours is the unbiased leave-one-out estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from components.algorithms import Algorithm, Group, best_and_worst

if TYPE_CHECKING:
    from torch import Tensor


class Sppo(Algorithm):
    """SPPO's hyper-parameter."""

    name: Literal["sppo"] = "sppo"
    eta: PositiveFloat = 10.0

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """The best and the worst of each prompt's responses."""
        return best_and_worst(win_rate)

    def loss(self, group: Group) -> Tensor:
        """[(log pi_theta - log pi_t) / eta - (v - 1/2)]², (n, 2)."""
        return ((group.logp - group.logp_old) / self.eta - (group.win_rate - 0.5)).square()

    def target(self, group: Group) -> Tensor:
        """log pi_t + eta·(v - 1/2), where the loss is 0, (n, 2)."""
        return group.logp_old + self.eta * (group.win_rate - 0.5)
