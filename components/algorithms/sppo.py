"""SPPO: self-play preference optimisation (Wu et al., arXiv 2405.00675).

WIND's squared risk without the reference (beta = 0) and with c = 1/2, on the best and the worst of K responses. Two
differences to the paper: its win rate counts each response's tie with itself, where ours is the unbiased leave-one-out
estimate, and its loss is ours times eta². An adaptive optimiser does not notice a scale, but `training.max_grad_norm`
does: at the paper's scale, with eta = 1000 a million times ours, every step is clipped and all batches weigh alike; at
ours hardly any is, and batches with larger gradients weigh more. `paper_scale` gives the paper's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from components.algorithms import Algorithm, Group, best_and_worst

if TYPE_CHECKING:
    from torch import Tensor


class Sppo(Algorithm):
    """SPPO's hyper-parameter."""

    name: Literal["sppo"] = "sppo"
    eta: PositiveFloat = Field(10.0, description="step size: a response that always wins is to rise by eta / 2 nats")
    paper_scale: bool = Field(
        False, description="loss times eta², as in the paper, so that max_grad_norm clips as in its recipe"
    )

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """The best and the worst of each prompt's responses."""
        return best_and_worst(win_rate)

    def loss(self, group: Group) -> Tensor:
        """[(log pi_theta - log pi_t) / eta - (v - 1/2)]², (n, 2); with `paper_scale` times eta²."""
        loss = ((group.logp - group.logp_old) / self.eta - (group.win_rate - 0.5)).square()
        return self.eta**2 * loss if self.paper_scale else loss

    def target(self, group: Group) -> Tensor:
        """log pi_t + eta·(v - 1/2), where the loss is 0, (n, 2)."""
        return group.logp_old + self.eta * (group.win_rate - 0.5)
