"""Iterative IPO (Azar et al., arXiv 2310.12036) on the best and the worst of K fresh responses.

Like `dpo`, with a squared loss: the margin over the reference is drawn to 1/(2·beta) instead of growing without bound.
`beta` is the paper's tau.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from components.algorithms import Group
from components.algorithms._pairwise import Pairwise

if TYPE_CHECKING:
    from torch import Tensor


class Ipo(Pairwise):
    """IPO's hyper-parameter."""

    name: Literal["ipo"] = "ipo"
    beta: PositiveFloat = Field(0.1, description="the paper's tau: the margin is drawn to 1 / (2 beta)")

    def pair_loss(self, margin: Tensor) -> Tensor:
        """[margin - 1/(2·beta)]², (n,)."""
        return (margin - 1 / (2 * self.beta)).square()

    def target(self, group: Group) -> Tensor:
        """Log-probs at which the margin is 1/(2·beta), (n, 2): of these, those that moved as far up as down.

        Where the two tie, the loss is 0 everywhere, and log pi_t the nearest.
        """
        gain = group.logp_old - group.logp_ref
        missing = 1 / (2 * self.beta) - (gain[:, :1] - gain[:, 1:])
        preferred = (group.win_rate[:, :1] > group.win_rate[:, 1:]).to(gain.dtype)
        return group.logp_old + missing * preferred * gain.new_tensor([0.5, -0.5])
