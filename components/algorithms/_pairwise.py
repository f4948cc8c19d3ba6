"""What `dpo` and `ipo` share: a loss of the margin between the best and the worst of K responses."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.algorithms import Algorithm, Group, best_and_worst

if TYPE_CHECKING:
    from torch import Tensor


class Pairwise(Algorithm):
    """An algorithm on pairs of which one response was preferred; a pair that ties teaches nothing."""

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """The best and the worst of each prompt's responses."""
        return best_and_worst(win_rate)

    def informative(self, win_rate: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Prompts of whose pair one was preferred."""
        return win_rate[:, 0] > win_rate[:, 1]

    @abstractmethod
    def pair_loss(self, margin: Tensor) -> Tensor:
        """Loss of each pair by its margin over the reference, log (pi/pi_ref)(best) - log (pi/pi_ref)(worst); (n,)."""

    def loss(self, group: Group) -> Tensor:
        """The pair's loss for both of a pair, (n, 2); 0 where the two tie, as neither was preferred."""
        gain = group.logp - group.logp_ref
        preferred = (group.win_rate[:, 0] > group.win_rate[:, 1]).to(gain.dtype)
        loss = self.pair_loss(gain[:, 0] - gain[:, 1]) * preferred
        return loss[:, None].expand(-1, 2)
