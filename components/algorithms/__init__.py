"""Alignment algorithms: each one short module, found by its name in the config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.config.schema import Section

if TYPE_CHECKING:  # configs are read in steps that need no torch; importing it takes seconds
    from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The responses of a `Group` token by token, all tensors (n, m, L); 0 behind a response's end."""

    logp: Tensor  # under pi_theta, with a gradient
    logp_old: Tensor  # under pi_t
    logp_ref: Tensor  # under the reference
    mask: Tensor  # 1 at tokens, 0 behind the end
    mean_length: float  # tokens per response, over all that the optimiser step trains on


@dataclass(frozen=True)
class Group:
    """m of the K responses to each of n prompts, as an algorithm's loss sees them; all tensors (n, m).

    Log-probs are natural logs summed over response tokens. Only `logp` and `tokens.logp` carry a gradient.
    """

    logp: Tensor  # under the policy in training, pi_theta
    logp_old: Tensor  # under the policy that drew the responses, pi_t
    logp_ref: Tensor  # under the reference
    win_rate: Tensor  # leave-one-out estimate of P(y > pi_t) over all K, in [0, 1]
    reward: Tensor | None = None  # the judge's scores; NaN where it compares pairs only
    tokens: Tokens | None = None  # for algorithms that need them

    def at_start(self) -> Group:
        """The same before training, when pi_theta is pi_t."""
        tokens = self.tokens and replace(self.tokens, logp=self.tokens.logp_old)
        return replace(self, logp=self.logp_old, tokens=tokens)


@dataclass(frozen=True)
class FreshGroup:
    """What an on-policy algorithm draws for each of n prompts in a training step, all tensors without a gradient.

    y comes from the policy in training, y1 and y2 from the anchor.
    """

    logp: Tensor  # (n,), log pi_theta(y)
    logp_anchor: Tensor  # (n,), log pi_anchor(y)
    preference: Tensor  # (n, 3, 3), P(row > column) among y, y1, y2


class BaseAlgorithm(Section, ABC):
    """What every algorithm has; derive from `Algorithm` or `OnPolicyAlgorithm`."""

    name: str

    on_policy: ClassVar[bool] = False  # whether its training step draws and judges the responses itself
    reads_rewards: ClassVar[bool] = False  # its loss looks at the judge's scores where there are some

    @abstractmethod
    def responses_per_prompt(self, *, k: int, epochs: int) -> int:
        """How many responses to each of its prompts an iteration draws for training."""


class Algorithm(BaseAlgorithm):
    """Hyper-parameters of an algorithm, and its loss on responses that were drawn before training began."""

    @property
    def needs_tokens(self) -> bool:
        """Whether its loss looks at single tokens, `Group.tokens`."""
        return False

    def responses_per_prompt(self, *, k: int, epochs: int) -> int:  # noqa: ARG002 - on-policy ones read the epochs
        """K; every epoch trains on the same ones."""
        return k

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which responses of each prompt to train on: indices (n, m) into K. Default: all of them."""
        n, k = win_rate.shape
        return np.tile(np.arange(k), (n, 1))

    def informative(self, win_rate: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which prompts to train on, (n,), by the win rates (n, m) of the selected responses. Default: all of them.

        Saves the time of those whose loss is 0 whatever the policy says of their responses.
        """
        return np.ones(len(win_rate), dtype=bool)

    @abstractmethod
    def loss(self, group: Group) -> Tensor:
        """Loss per response, shape (n, m); the trainer takes its mean."""

    def target(self, group: Group) -> Tensor | None:  # noqa: ARG002 - its overriders read it
        """log pi_theta of each response at which the mean loss is least, (n, m); of several, the nearest to `logp_old`.

        Default: None, for losses that fall without end.
        """
        return None


class OnPolicyAlgorithm(BaseAlgorithm):
    """Hyper-parameters of an algorithm that draws its responses inside the training step; see `training.on_policy`."""

    on_policy: ClassVar[bool] = True

    anchor_rate: float = Field(ge=0, le=1, description="share of the policy in the anchor's moving average, per step")

    def responses_per_prompt(self, *, k: int, epochs: int) -> int:  # noqa: ARG002 - they draw so many whatever K is
        """One from the policy and two from the anchor, anew in each epoch."""
        return 3 * epochs

    @abstractmethod
    def weights(self, group: FreshGroup) -> Tensor:
        """Weights (n, 3) of the step's gradient: the trainer descends along mean_i Σ_j weights_ij·∇log pi_theta(y_ij).

        Columns are y, y1, y2. A negative weight raises a response.
        """


def best(win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of each prompt's best response, (n,); the first of those that tie, which are exchangeable."""
    return np.asarray(win_rate.argmax(1))


def best_and_worst(win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices (n, 2) of each prompt's best and worst response; two different ones also where all tie."""
    last = win_rate.shape[1] - 1
    return np.stack([win_rate.argmax(1), last - win_rate[:, ::-1].argmin(1)], 1)


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
