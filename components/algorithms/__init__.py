"""Alignment algorithms: each one short module, found by its name in the config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.schema import Section

if TYPE_CHECKING:  # configs are read in steps that need no torch; importing it takes seconds
    from torch import Tensor


@dataclass(frozen=True)
class Group:
    """m of the K responses to each of n prompts, as an algorithm's loss sees them; all tensors (n, m).

    Log-probs are natural logs summed over response tokens. Only `logp` carries a gradient.
    """

    logp: Tensor  # under the policy in training, pi_theta
    logp_old: Tensor  # under the policy that drew the responses, pi_t
    logp_ref: Tensor  # under the reference
    win_rate: Tensor  # leave-one-out estimate of P(y > pi_t) over all K, in [0, 1]


class Algorithm(Section, ABC):
    """Hyper-parameters of an algorithm, and its loss."""

    name: str

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which responses of each prompt to train on: indices (n, m) into K. Default: all of them."""
        n, k = win_rate.shape
        return np.tile(np.arange(k), (n, 1))

    @abstractmethod
    def loss(self, group: Group) -> Tensor:
        """Loss per response, shape (n, m); the trainer takes its mean."""


def leave_one_out(preference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Win rate of each response against the others of its group.

    v_i = 1/(K-1) Σ_{j≠i} P(y_i > y_j), so E[v_i | y_i] = P(y_i > pi_t) exactly; counting the tie of a
    response with itself would pull the estimate towards 1/2.

    Args:
        preference: (n, K, K), P(y_i > y_j) in [0, 1], K >= 2.

    Returns:
        (n, K) in [0, 1].
    """
    k = preference.shape[-1]
    others = preference.sum(-1) - np.diagonal(preference, axis1=-2, axis2=-1)
    win_rate: NDArray[np.float64] = others / (k - 1)
    return win_rate
