"""GRPO: group relative policy optimisation (Shao et al., DeepSeekMath, arXiv 2402.03300, section 4.1).

A policy gradient with a token's probability ratio, clipped as in PPO, and a response's reward relative to its group's
as the advantage of all its tokens. Where practice has left the paper, the default follows practice (as TRL 1.16 does):

* no KL term (`beta` 0; the paper has 0.04), and if there is one, the estimator exp(d) - d - 1 of KL(pi || pi_ref) with
  d = log pi_ref - log pi of a token (Schulman's k3), as in the paper;
* a step's tokens all count alike (`length: token`, DAPO, Yu et al., arXiv 2503.14476), where the paper takes the mean
  of each response first (`response`); `constant` is Dr. GRPO's sum (Liu et al., arXiv 2503.20783) over a fixed number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.algorithms import Algorithm, Group
from components.algorithms._policy_gradient import clipped, rewards

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-4  # added to the spread, as TRL does: responses that tie have the advantage 0
CONSTANT = 100.0  # tokens by which `length: constant` divides; with an adaptive optimiser any number serves


class Grpo(Algorithm):
    """GRPO's hyper-parameters."""

    name: Literal["grpo"] = "grpo"
    beta: float = Field(0.0, ge=0, description="weight of the KL to the reference, per token")
    clip: float = Field(0.2, gt=0, lt=1, description="how far a token's ratio may move from 1 before it stops counting")
    scale: Literal["group", "none"] = Field(
        "group", description="divide advantages by the standard deviation of the prompt's rewards, or do not (Dr. GRPO)"
    )
    length: Literal["token", "response", "constant"] = Field(
        "token", description="mean over the step's tokens, over each response's tokens, or a sum over a constant"
    )

    reads_rewards: ClassVar[bool] = True

    @property
    def needs_tokens(self) -> bool:
        """Yes: each token has a ratio of its own."""
        return True

    def loss(self, group: Group) -> Tensor:
        """Loss of each response, (n, m)."""
        assert group.tokens is not None
        tokens = group.tokens
        advantage = advantages(rewards(group), scaled=self.scale == "group")[..., None]
        loss = clipped(tokens.logp - tokens.logp_old, advantage, self.clip)
        if self.beta:
            gap = tokens.logp_ref - tokens.logp
            loss = loss + self.beta * (gap.exp() - gap - 1)
        total = (loss * tokens.mask).sum(-1)
        match self.length:
            case "token":
                return total / tokens.mean_length
            case "response":
                return total / tokens.mask.sum(-1)
            case "constant":
                return total / CONSTANT


def advantages(reward: Tensor, *, scaled: bool) -> Tensor:
    """Rewards relative to their group's mean, (n, m); in units of its standard deviation (m - 1) if `scaled`."""
    centred = reward - reward.mean(-1, keepdim=True)
    return centred / (reward.std(-1, keepdim=True) + TINY) if scaled else centred
