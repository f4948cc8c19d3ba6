"""J-BOND (Sessa et al., arXiv 2407.14622, algorithm 2): on-policy distillation of the best of two from an anchor.

Per prompt y ~ pi_theta and y1, y2 ~ anchor. The step's gradient is

    (1 - b)·forward + b·backward + g·regulariser,
    forward      -∇log pi_theta(best of y1, y2)
    backward     -(R - mean R of the other prompts)·∇log pi_theta(y),  R = r - log(pi_theta(y) / pi_anchor(y)),
                 r = -log 16 where y is worse than both y1 and y2, else 0
    regulariser  +∇KL(pi_theta || anchor), by the same y and the same kind of baseline

and the anchor follows the policy as a moving average. Two differences to the paper: the regulariser's sign (as printed
it would raise the KL) and its baseline. "Worse" and "best" come from the judge's preferences, so no reward is needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.algorithms import FreshGroup, OnPolicyAlgorithm

if TYPE_CHECKING:
    from torch import Tensor

LOSS_REWARD = -math.log(16)


class JBond(OnPolicyAlgorithm):
    """J-BOND's hyper-parameters, with the paper's defaults."""

    name: Literal["jbond"] = "jbond"
    anchor_rate: float = Field(0.02, ge=0, le=1, description="e, share of the policy in the anchor's moving average")
    backward_weight: float = Field(0.5, ge=0, le=1, description="b, share of the backward KL")
    kl_weight: float = Field(0.0, ge=0, description="g, weight of the KL to the anchor")

    def weights(self, group: FreshGroup) -> Tensor:
        """Weights of ∇log pi_theta(y), ∇log pi_theta(y1) and ∇log pi_theta(y2), (n, 3)."""
        beaten = (group.preference[:, 0, 1:] < 0.5).all(-1)
        log_ratio = group.logp - group.logp_anchor
        returns = LOSS_REWARD * beaten.to(log_ratio.dtype) - log_ratio
        second = (group.preference[:, 1, 2] < 0.5).to(log_ratio.dtype)
        forward = self.backward_weight - 1
        weights = log_ratio.new_empty(len(log_ratio), 3)
        weights[:, 0] = self.kl_weight * centred(log_ratio) - self.backward_weight * centred(returns)
        weights[:, 1] = forward * (1 - second)
        weights[:, 2] = forward * second
        return weights


def centred(values: Tensor) -> Tensor:
    """Each value less the mean of the others, (n,); a single value is left as it is, for it has no others."""
    n = len(values)
    return (values - values.mean()) * (n / (n - 1)) if n > 1 else values
