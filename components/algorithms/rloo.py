"""RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al., "Back to Basics", arXiv 2402.14740).

A policy gradient of whole responses: the baseline of a response is the mean reward of the others to its prompt, and
the KL to the reference is a part of the reward, r - beta·log(pi_t / pi_ref). The paper takes one step per response;
for the further passes of an iteration a response's probability ratio is clipped as in PPO, as TRL does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.algorithms import Algorithm, Group
from components.algorithms._policy_gradient import clipped, rewards

if TYPE_CHECKING:
    from torch import Tensor


class Rloo(Algorithm):
    """RLOO's hyper-parameters."""

    name: Literal["rloo"] = "rloo"
    beta: float = Field(0.05, ge=0, description="weight of the KL to the reference, per response, in the reward")
    clip: float = Field(0.2, gt=0, lt=1, description="how far a response's ratio may move from 1 before it is cut off")

    reads_rewards: ClassVar[bool] = True

    def loss(self, group: Group) -> Tensor:
        """Loss of each response, (n, m)."""
        reward = rewards(group) - self.beta * (group.logp_old - group.logp_ref)
        return clipped(group.logp - group.logp_old, leave_one_out_advantages(reward), self.clip)


def leave_one_out_advantages(reward: Tensor) -> Tensor:
    """Each reward less the mean of the others to its prompt, (n, m), m >= 2: (reward - mean)·m / (m - 1)."""
    m = reward.shape[-1]
    return (reward - reward.mean(-1, keepdim=True)) * (m / (m - 1))
