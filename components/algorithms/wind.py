"""WIND: win rate dominance by regression of the policy onto its own win rates.

Method: "Faster WIND: Accelerating Iterative Best-of-N Distillation for LLM Alignment" (AISTATS 2025,
arXiv 2410.20727). The exact update of one iteration,

    log pi_{t+1} = [log pi_t + beta·eta·log pi_ref + eta·P(· > pi_t)] / (1 + beta·eta) - log Z_t(x),

makes h = [(1 + beta·eta)·log pi_theta - log pi_t - beta·eta·log pi_ref] / eta equal to P(y > pi_t) - c(x), with
c(x) = ((1 + beta·eta)/eta)·log Z_t(x). The loss is a proper score of s = h + c against the leave-one-out win rate v,
whose mean given y is P(y > pi_t). What is known of the four treatments of c(x), each proved in
`tests/unit/test_properties.py` and, for small K, `tests/unit/test_fixed_points.py`:

* `constant` is exact in the limit eta -> 0 only; with `kl` and `nce`, only while pi_t is near pi_ref or beta small.
* `monte_carlo` is consistent for every risk as K grows. At small K the noise of v biases it: with beta = 0.3, eta = 1
  and K = 2, its fixed point is 0.01 (`squared`) to 0.06 (`nce`) in total variation from the equilibrium.
* `group` is exact at every K for `squared`, and consistent as K grows for `kl` and `nce`. The loss does not see the
  level of log pi_theta: only the policy's own normalisation holds it.
* `mixed` adds a hold on that level: consistent as K grows if the level is by `monte_carlo`.

The exact update converges to the equilibrium, KL(pi* || pi_t) <= (1 + beta·eta)^(-t)·KL(pi* || pi_0), for eta <= beta.
The defaults are far outside of that: steps so small would teach a language model nothing. On bandits whose preferences
come from rewards, the exact update reached pi* at the defaults in every trial. Where preferences are cyclic (A beats B
beats C beats A), it moved away and circled, at eta = 500·beta at last further from pi* than the reference (KL 5.0
against 0.24): then lower eta or raise beta.

The defaults put the targets of an iteration further away than a sensible learning rate moves a response in it, so that
`clip` and the rate decide how far it goes: with targets within reach of one pass, a language model unlearned in the
second what it had learned in the first (docs/algorithms.md, "Choosing eta, beta …"; docs/real-model.md).

`baseline_shift`, `loser_weight`, `trained_responses` and `trained_part` are this project's additions, not the paper's.
`baseline_shift` alone leaves the fixed point of the squared risk where it is. `loser_weight` moves it, for the weighted
risk is no proper score of v: 0.1 moved it by 0.03 to 0.20 in total variation, where that of the reference from the
equilibrium was 0.11 to 0.51. `trained_responses` moves it too, since the noise of v takes part in the choice: the best
of four alone by 0.08, the best two by 0.03, where the reference was 0.14 away.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator

from components.algorithms import Algorithm, Group, _risks

if TYPE_CHECKING:
    from torch import Tensor


class Wind(Algorithm):
    """WIND's hyper-parameters."""

    name: Literal["wind"] = "wind"
    beta: float = Field(0.002, ge=0, description="KL strength of the game; 0: no regularisation")
    eta: PositiveFloat = Field(
        1000.0, description="step size of one iteration; above beta, cyclic preferences may not converge"
    )
    risk: Literal["squared", "kl", "nce"] = Field("squared", description="score of s against v")
    eps: float = Field(0.05, gt=0, lt=0.5, description="kl and nce: distance of s from 0 and 1 where logarithms end")
    normalizer: Literal["constant", "monte_carlo", "group", "mixed"] = Field(
        "constant", description="treatment of c(x)"
    )
    mean_weight: float = Field(0.1, gt=0, description="mixed: weight of the term in the group's mean of s")
    mean_normalizer: Literal["constant", "monte_carlo"] = Field(
        "monte_carlo", description="mixed: estimate of c(x) in that term"
    )
    clip: float | None = Field(
        0.2,
        gt=0,
        lt=1,
        description="a token whose probability ratio to pi_t has moved by more than this share towards the response's "
        "target is left alone for the rest of the iteration; null: none is",
    )
    baseline_shift: float = Field(0.0, ge=0, lt=1, description="regress h onto v - c + shift instead of v - c")
    loser_weight: float = Field(
        1.0, gt=0, le=1, description="weight of responses with v < 1/2; below 1 it moves the fixed point"
    )
    trained_responses: int | None = Field(
        None,
        ge=1,
        description="train on so many of the K responses to a prompt; null: on all. Saves time, and moves the fixed "
        "point: the noise of v takes part in the choice",
    )
    trained_part: Literal["furthest", "best"] = Field(
        "furthest", description="which those are: with the win rates furthest from 1/2, or with the highest"
    )

    @model_validator(mode="after")
    def _part_has_a_size(self) -> Self:
        if self.trained_part == "best" and self.trained_responses is None:
            raise ValueError(
                "trained_part: best says which responses are trained on, and trained_responses does not say how many. "
                "Give it, or leave trained_part out."
            )
        return self

    @model_validator(mode="after")
    def _part_needs_no_group(self) -> Self:
        if self.trained_responses is not None and self.normalizer != "constant":
            raise ValueError(
                f"trained_responses: {self.trained_responses} leaves out responses that normalizer "
                f"{self.normalizer!r} takes means over. Use normalizer 'constant', or leave trained_responses out."
            )
        return self

    @model_validator(mode="after")
    def _shift_has_a_level(self) -> Self:
        if self.normalizer == "group" and self.baseline_shift:
            raise ValueError(
                f"baseline_shift: {self.baseline_shift} shifts the level of h, which normalizer 'group' cancels. "
                "Use normalizer 'mixed', or leave baseline_shift out."
            )
        return self

    @property
    def needs_tokens(self) -> bool:
        """With `clip`."""
        return self.clip is not None

    def select(self, win_rate: NDArray[np.float64]) -> NDArray[np.int64]:
        """All K, or `trained_responses` of them; of equal ones the first."""
        if self.trained_responses is None:
            return super().select(win_rate)
        rank = win_rate if self.trained_part == "best" else np.abs(win_rate - 0.5)
        return np.argsort(-rank, axis=1, kind="stable")[:, : self.trained_responses]

    def loss(self, group: Group) -> Tensor:
        """Risk of each response, (n, m)."""
        if self.clip is not None:
            group = proximal(group, self.predicted(group) > group.win_rate, clip=self.clip)
        s, v = self.predicted(group), group.win_rate
        lost = (v < 0.5).to(s.dtype)
        loss = (1 - (1 - self.loser_weight) * lost) * self._risk(s, v)
        if self.normalizer == "mixed":
            h = relative_logp(group, beta=self.beta, eta=self.eta)
            mean = (h + self._c(group, self.mean_normalizer)).mean(-1, keepdim=True) - self.baseline_shift
            loss = loss + self.mean_weight * self._risk(mean, v.mean(-1, keepdim=True))
        return loss

    def predicted(self, group: Group) -> Tensor:
        """s = h + c, the win rate that the policy's log-probs stand for; (n, m)."""
        h = relative_logp(group, beta=self.beta, eta=self.eta)
        if self.normalizer in {"group", "mixed"}:
            return h + group_level(h)
        # A lower c, not a higher v: the risk stays a proper score of a win rate in [0, 1].
        return h + self._c(group, self.normalizer) - self.baseline_shift

    def target(self, group: Group) -> Tensor:
        """log pi_theta at which every risk is least, (n, m), whatever `loser_weight`.

        Each risk is least at s = v, also where its logarithms have ended. With a c that knows nothing of pi_theta, so
        at h = v - c + baseline_shift. With the group's level, s_i - 1/2 = m/(m - 1)·(h_i - mean h), and v_i - 1/2 has
        the mean 0 over all K: so h_i = (m - 1)/m·(v_i - mean v) + any level. `mixed` holds that at mean v - mean c +
        baseline_shift; `group` does not, and the mean of log pi_theta stays that of log pi_t. From h,
        log pi_theta = (eta·h + log pi_t + beta·eta·log pi_ref) / (1 + beta·eta).
        """
        v, m = group.win_rate, group.win_rate.shape[-1]
        if self.normalizer in {"group", "mixed"}:
            mean = v.mean(-1, keepdim=True)
            if self.normalizer == "mixed":
                level = (v - self._c(group, self.mean_normalizer)).mean(-1, keepdim=True) + self.baseline_shift
            else:
                start = relative_logp(group.at_start(), beta=self.beta, eta=self.eta)
                level = start.mean(-1, keepdim=True)
            h = (m - 1) / m * (v - mean) + level
        else:
            h = v - self._c(group, self.normalizer) + self.baseline_shift
        mixed = group.logp_old + self.beta * self.eta * group.logp_ref
        return (self.eta * h + mixed) / (1 + self.beta * self.eta)

    def _c(self, group: Group, normalizer: str) -> Tensor | float:
        return constant() if normalizer == "constant" else monte_carlo(group, beta=self.beta, eta=self.eta)

    def _risk(self, s: Tensor, v: Tensor) -> Tensor:
        if self.risk == "squared":
            return _risks.squared(s, v)
        return (_risks.kl if self.risk == "kl" else _risks.nce)(s, v, eps=self.eps)


def proximal(group: Group, falls: Tensor, *, clip: float) -> Group:
    """The group with log-probs of the same values, whose gradient leaves out tokens that have moved enough.

    Those are the tokens whose ratio pi_theta / pi_t is below 1 - clip in a response that `falls`, (n, m), and above
    1 + clip in one that rises, as in proximal policy optimisation (Schulman et al., arXiv 1707.06347).
    """
    import torch

    assert group.tokens is not None
    logp = group.tokens.logp
    ratio = (logp.detach() - group.tokens.logp_old).exp()
    moved = torch.where(falls[..., None], ratio < 1 - clip, ratio > 1 + clip)
    return replace(group, logp=torch.where(moved, logp.detach(), logp).sum(-1))


def relative_logp(group: Group, *, beta: float, eta: float) -> Tensor:
    """h_theta(y) = [(1 + beta·eta)·log pi_theta - log pi_t - beta·eta·log pi_ref] / eta, shape (n, m)."""
    mixed = group.logp_old + beta * eta * group.logp_ref
    return ((1 + beta * eta) * group.logp - mixed) / eta


def constant() -> float:
    """c = 1/2, since the mean of P(y > pi_t) over y ~ pi_t is 1/2.

    To first order in eta the exact c is 1/2 - beta·KL(pi_t || pi_ref).
    """
    return 0.5


def monte_carlo(group: Group, *, beta: float, eta: float) -> Tensor:
    """c(x) with Z(x) estimated from the m responses, for each of them: shape (n, m), m >= 2.

    Z(x) = E_{y ~ pi_t} exp([eta·P(y > pi_t) - beta·eta·log(pi_t / pi_ref)] / (1 + beta·eta)).

    In c_i the mean of the others' log(pi_t / pi_ref) stands for y_i's own. To first order c_i is then
    1/2 - beta·mean_{j≠i} log(pi_t / pi_ref)(y_j), the same whatever y_i is; with the own one it would fall by
    beta/m·log(pi_t / pi_ref)(y_i), and the fixed point be that of the game with beta·(m - 1)/m. The own v stays: v has
    the mean 1/2 over the group. What is left at small m is the noise of v in the second order, of order eta.
    """
    scale, m = 1 + beta * eta, group.win_rate.shape[-1]
    log_ratio = group.logp_old - group.logp_ref
    others = (log_ratio.sum(-1, keepdim=True) - log_ratio) / (m - 1)
    exponent, own = ((eta * group.win_rate - beta * eta * ratio) / scale for ratio in (log_ratio, others))
    return scale / eta * (_others_logsumexp(exponent).logaddexp(own) - math.log(m))


def _others_logsumexp(x: Tensor) -> Tensor:
    """log Σ_{j≠i} exp(x_j), (n, m): what stands before i and what stands after, as a difference would cancel."""
    from torch import cat

    nothing = x.new_full((len(x), 1), -math.inf)
    before = cat([nothing, x[:, :-1].logcumsumexp(-1)], -1)
    after = cat([x[:, 1:].flip(-1).logcumsumexp(-1).flip(-1), nothing], -1)
    return before.logaddexp(after)


def group_level(h: Tensor) -> Tensor:
    """c_i = 1/2 - mean of h_j over j ≠ i: the c at which s has the mean of P(y > pi_t), 1/2. Shape (n, m), m >= 2.

    Carries h's gradient. A response is left out of its own mean as it is left out of its own v: given y_i, the mean
    of s_i - v_i is then h(y_i) - E h + 1/2 - P(y_i > pi_t). Centring h and v both on the group's mean, the plain loss
    over all pairs, shrinks h alone by (m - 1)/m, and its minimiser overshoots by m/(m - 1): twice too far at m = 2.
    """
    return 0.5 - (h.sum(-1, keepdim=True) - h) / (h.shape[-1] - 1)
