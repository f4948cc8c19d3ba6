"""What `grpo` and `rloo` share: rewards of a group, and the clipped surrogate of proximal policy optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.algorithms import Group

if TYPE_CHECKING:
    from torch import Tensor


def rewards(group: Group) -> Tensor:
    """What the policy gradient raises, (n, m): the judge's scores, or win rates where it compares pairs only."""
    if group.reward is None or bool(group.reward.isnan().any()):
        return group.win_rate
    return group.reward


def clipped(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(r·A, clip(r, 1 - clip, 1 + clip)·A) with r = exp(log_ratio); Schulman et al., arXiv 1707.06347, eq. 7.

    Its gradient is that of -r·A, and 0 where r has moved past the clip in the direction that A asks for. Tensors
    broadcast, and so does the result.
    """
    import torch

    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
