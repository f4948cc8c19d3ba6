"""Iterative DPO (Rafailov et al., arXiv 2305.18290) on the best and the worst of K fresh responses.

Differs from the paper in where pairs come from: the current policy and the judge, anew in each iteration. The
reference stays the base policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from components.algorithms._pairwise import Pairwise

if TYPE_CHECKING:
    from torch import Tensor


class Dpo(Pairwise):
    """DPO's hyper-parameter."""

    name: Literal["dpo"] = "dpo"
    beta: PositiveFloat = Field(0.1, description="strength of the KL to the reference")

    def pair_loss(self, margin: Tensor) -> Tensor:
        """-log sigmoid(beta·margin), (n,)."""
        from torch.nn.functional import logsigmoid

        return -logsigmoid(self.beta * margin)
