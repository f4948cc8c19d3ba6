"""Variants of WIND that were tried on a real language model and are not part of the product; see docs/algorithms.md.

`{"name": "wind_trial", …}` in an arm of real_model.py builds one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.algorithms import Group
from components.algorithms.wind import Wind, group_level, proximal, relative_logp

UNIFORM = 12**-0.5  # spread of win rates that are uniform on [0, 1]


class WindTrial(Wind):
    """WIND with changes of its regression."""

    name: str = "wind_trial"
    scaled: bool = False  # win rates of each prompt are stretched to the spread of uniform ones
    per_token: bool = False  # moves of log-probs count relative to the response's length
    one_sided: bool = False  # a response that is past its target is left alone
    group: bool = False  # centred on the other responses to the prompt
    skip_ties: bool = False  # prompts whose responses all tie are left out
    best_weight: float = 0.0  # of the forward KL to the best response (RSPO), in gradients of a win rate wrong by 1

    @property
    def needs_tokens(self) -> bool:
        """Yes: lengths come with them."""
        return True

    def informative(self, win_rate: NDArray[np.float64]) -> NDArray[np.bool_]:
        """All, or those that do not tie."""
        return np.ptp(win_rate, axis=1) > 0 if self.skip_ties else super().informative(win_rate)

    def loss(self, group: Group) -> Tensor:
        """Squared risk of each response, (n, m)."""
        v = group.win_rate
        if self.scaled:
            v = 0.5 + UNIFORM * (v - v.mean(-1, keepdim=True)) / (v.std(-1, keepdim=True) + 1e-4)
        if self.clip is not None:
            group = proximal(group, self.predicted(group) > v, clip=self.clip)
        h = relative_logp(group, beta=self.beta, eta=self.eta)
        if self.per_token:
            assert group.tokens is not None
            h = h * (group.tokens.mean_length / group.tokens.mask.sum(-1))
        s = h + (group_level(h) if self.group else 0.5) - self.baseline_shift
        loss = (1 - (1 - self.loser_weight) * (v < 0.5).to(s.dtype)) * (s - v).square()
        if self.one_sided:
            past = ((v > 0.5) & (s > v)) | ((v < 0.5) & (s < v))
            loss = torch.where(past, torch.zeros_like(loss), loss)
        if self.best_weight:
            best = torch.nn.functional.one_hot(v.argmax(-1), v.shape[-1]) * (v > 0.5)
            loss = loss - self.best_weight * 2 * (1 + self.beta * self.eta) / self.eta * best * group.logp
        return loss
