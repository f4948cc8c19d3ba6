"""Iterative best-of-N distillation by its forward KL (BOND: Sessa et al., arXiv 2407.14622), N = K.

-log pi_theta(best of K) is the forward KL to the best-of-K policy of pi_t. Where the paper mixes in log space,
BoN^(1-alpha)·pi_ref^alpha, the mixture that a forward KL can reach from samples is (1-alpha)·BoN + alpha·pi_ref; the
reference's part comes from pi_t's responses by importance weights, normalised within a prompt's group.

That mixture always keeps alpha of the reference, as mixing in log space does only where N·(1 - alpha) < 1. But weights
that are normalised within K responses cannot: a response that pi_t has nearly lost is drawn with probability K·pi_t(y),
and then gets alpha in all. So per iteration its mass is multiplied by K·alpha, and with alpha < 1/K the policy ends at
the best response all the same, only later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.algorithms import Algorithm, Group, best

if TYPE_CHECKING:
    from torch import Tensor


class Bond(Algorithm):
    """BOND's hyper-parameter."""

    name: Literal["bond"] = "bond"
    alpha: float = Field(
        0.0, ge=0, lt=1, description="share of the reference in the target; below 1/K it only delays the collapse"
    )

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """The best response, which is all that is needed without the reference; with it, all K, the best first."""
        first = best(win_rate)[:, None]
        if self.alpha == 0:
            return first
        others = np.arange(win_rate.shape[1] - 1)[None]
        return np.concatenate([first, others + (others >= first)], 1)

    def loss(self, group: Group) -> Tensor:
        """m times each response's share of the cross-entropy to the target, (n, m): their mean is the prompt's loss."""
        weight = self.alpha * (group.logp_ref - group.logp_old).softmax(-1)
        weight[:, 0] += 1 - self.alpha
        return -weight * group.logp * weight.shape[1]
