"""WIND: win rate dominance by regression of the policy onto its own win rates.

Method: "Faster WIND: Accelerating Iterative Best-of-N Distillation for LLM Alignment" (AISTATS 2025,
arXiv 2410.20727). The exact update of one iteration,

    log pi_{t+1} = [log pi_t + beta·eta·log pi_ref + eta·P(· > pi_t)] / (1 + beta·eta) - log Z_t(x),

makes h = [(1 + beta·eta)·log pi_theta - log pi_t - beta·eta·log pi_ref] / eta equal to P(y > pi_t) - c(x), with
c(x) = ((1 + beta·eta)/eta)·log Z_t(x). The loss regresses s = h + c onto the leave-one-out win rate v, whose mean
given y is P(y > pi_t). `baseline_shift` and `loser_weight` are additions of this project, not of the paper.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from components.algorithms import Algorithm, Group

if TYPE_CHECKING:
    from torch import Tensor


class Wind(Algorithm):
    """WIND's hyper-parameters."""

    name: Literal["wind"] = "wind"
    beta: float = Field(0.02, ge=0, description="KL strength of the game; 0: no regularisation")
    eta: PositiveFloat = Field(10.0, description="step size of one iteration")
    normalizer: Literal["constant", "monte_carlo"] = Field("constant", description="estimate of c(x)")
    baseline_shift: float = Field(0.0, ge=0, lt=1, description="regress h onto v - c + shift instead of v - c")
    loser_weight: float = Field(1.0, gt=0, le=1, description="weight of responses with v < 1/2")

    def loss(self, group: Group) -> Tensor:
        """Squared risk of each response, (n, m)."""
        c = constant() if self.normalizer == "constant" else monte_carlo(group, beta=self.beta, eta=self.eta)
        s = relative_logp(group, beta=self.beta, eta=self.eta) + c
        lost = (group.win_rate < 0.5).to(s.dtype)
        weight = 1 - (1 - self.loser_weight) * lost
        return weight * (s - group.win_rate - self.baseline_shift).square()


def relative_logp(group: Group, *, beta: float, eta: float) -> Tensor:
    """h_theta(y) = [(1 + beta·eta)·log pi_theta - log pi_t - beta·eta·log pi_ref] / eta, shape (n, m)."""
    mixed = group.logp_old + beta * eta * group.logp_ref
    return ((1 + beta * eta) * group.logp - mixed) / eta


def constant() -> float:
    """c = 1/2: exact to first order in eta, since the mean of P(y > pi_t) over y ~ pi_t is 1/2."""
    return 0.5


def monte_carlo(group: Group, *, beta: float, eta: float) -> Tensor:
    """c(x) with Z(x) estimated by the mean over the m responses; consistent, biased at small m. Shape (n, 1).

    Z(x) = E_{y ~ pi_t} exp([eta·P(y > pi_t) - beta·eta·log(pi_t / pi_ref)] / (1 + beta·eta)).
    """
    scale = 1 + beta * eta
    exponent = (eta * group.win_rate - beta * eta * (group.logp_old - group.logp_ref)) / scale
    log_z = exponent.logsumexp(-1, keepdim=True) - math.log(exponent.shape[-1])
    return scale / eta * log_z
