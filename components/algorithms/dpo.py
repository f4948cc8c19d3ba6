"""Iterative DPO (Rafailov et al., arXiv 2305.18290) on the best and the worst of K fresh responses.

Differs from the paper in where pairs come from: the current policy and the judge, anew in each iteration. The
reference stays the base policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from components.algorithms import Algorithm, Group, best_and_worst

if TYPE_CHECKING:
    from torch import Tensor


class Dpo(Algorithm):
    """DPO's hyper-parameter."""

    name: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """The best and the worst of each prompt's responses."""
        return best_and_worst(win_rate)

    def informative(self, win_rate: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Prompts of whose pair one was preferred."""
        return win_rate[:, 0] > win_rate[:, 1]

    def loss(self, group: Group) -> Tensor:
        """-log sigmoid(beta·margin) for both of a pair, (n, 2); 0 where the two tie, as neither was preferred."""
        from torch.nn.functional import logsigmoid

        loss = -logsigmoid(self.beta * margin(group)) * preferred(group)
        return loss[:, None].expand(-1, 2)


def margin(group: Group) -> Tensor:
    """How much more than the reference the policy prefers the best to the worst, (n,), nats.

    log pi_theta(best)/pi_ref(best) - log pi_theta(worst)/pi_ref(worst).
    """
    gain = group.logp - group.logp_ref
    return gain[:, 0] - gain[:, 1]


def preferred(group: Group) -> Tensor:
    """1 where the best wins more often than the worst, 0 where all K responses tie; (n,)."""
    return (group.win_rate[:, 0] > group.win_rate[:, 1]).to(group.logp.dtype)
