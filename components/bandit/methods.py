"""The methods of the laboratory. Each is a map from one policy to the next; `METHODS` names them.

To add one, write a class like those below and put it into the tuple at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from components.bandit.games import Bandit, RewardOrder
from components.bandit.metrics import extragradient_step, extragradient_step_size
from components.bandit.policies import LOWEST, Array, normalise
from components.bandit.solver import equilibrium
from components.config.errors import ConfigError
from components.config.schema import Section

MAX_FIXED_POINT_STEPS = 100_000


class Method(Section, ABC):
    """Hyper-parameters of a method, and its step."""

    name: str
    needs_order: ClassVar[bool] = False  # of rewards
    evaluations: ClassVar[int] = 1  # win rates P(· > pi), or best-of-N policies, computed in one step

    @abstractmethod
    def step(self, bandit: Bandit, log_pi: Array) -> Array:
        """pi_{t+1} from pi_t, both (n, Y)."""

    def target(self, bandit: Bandit) -> Array | None:
        """The policy that the method is after, (n, Y); None if there is none. Default: the equilibrium."""
        return equilibrium(bandit)

    def unusable(self, beta: float) -> str | None:
        """Why the method cannot be used at this beta, and the remedy; None if it can."""
        del beta
        return None

    def caution(self) -> str | None:
        """What to know of the results, and the remedy; None if nothing."""
        return None


class Wind(Method):
    """Exact WIND: log pi_{t+1} = [log pi_t + beta·eta·log pi_ref + eta·P(y > pi_t)] / (1 + beta·eta) - log Z.

    Keeps one policy and needs one win rate a step. KL(pi* || pi_t) <= (1 + beta·eta)^(-t)·KL(pi* || pi_0) for
    eta <= beta. From the reference it held in all games tried up to eta = 10·beta, from elsewhere not always (rock,
    paper, scissors at beta = 0.32). Far above, in games that are not transitive, the policy may leave pi* and circle.
    """

    name: Literal["wind"] = "wind"
    eta: PositiveFloat = Field(1.0, description="step size")

    def step(self, bandit: Bandit, log_pi: Array) -> Array:
        """See `Method.step`."""
        pull = bandit.beta * self.eta
        return normalise((log_pi + pull * bandit.log_ref + self.eta * bandit.game.win_rate(log_pi)) / (1 + pull))


class Bond(Method):
    """Iterative best-of-N distillation: pi_{t+1} ∝ BoN_N(pi_t)^(1-alpha)·pi_ref^alpha.

    With mixing (alpha > 0) its fixed point plays the log-win-rate game with b = alpha / ((1 - alpha)(N - 1)):
    log pi = log pi_ref + log P(y > pi) / b + const. That is exact for N = 2; for other N, P(y > pi) stands for the
    mean of F^(N-1) between F(< y) and F(<= y), to the power of 1/(N-1), the same where no response has much mass.
    Without mixing, pi_t = BoN_{N^t}(pi_0), which ends at the best response.

    Mixing holds the policy only where N·(1 - alpha) < 1, that is b > 1. Of a response y with F(<= y) << 1, one step
    multiplies log F(<= y) by N·(1 - alpha): else its log-prob, and one by one those of the next better responses, fall
    without end, slowly at N·(1 - alpha) = 1, where `kl_target` is NaN. In the end often only the best is left.
    """

    name: Literal["bond"] = "bond"
    needs_order: ClassVar[bool] = True
    N: int = Field(4, ge=2, description="responses of which the best is kept")
    alpha: float = Field(
        0.0, ge=0, lt=1, description="weight of the reference in the mixture; 0: no mixing; else above 1 - 1/N"
    )

    def step(self, bandit: Bandit, log_pi: Array) -> Array:
        """See `Method.step`. Raises ConfigError for a game without a reward order."""
        if not isinstance(bandit.game, RewardOrder):
            raise ConfigError("bond needs a reward order: a preference matrix has no best of N. Use another method.")
        best = bandit.game.best_of(log_pi, self.N)
        return normalise((1 - self.alpha) * best + self.alpha * bandit.log_ref)

    def caution(self) -> str | None:
        """Where the mixture does not hold the policy."""
        if self.alpha == 0 or self.N * (1 - self.alpha) < 1 - 1e-9:
            return None
        return (
            f"mixing with alpha = {self.alpha:g} does not hold the policy: N·(1 - alpha) = "
            f"{self.N * (1 - self.alpha):.3g} is not below 1, so log-probs fall without end, from the worst response "
            f"up. Raise alpha above {1 - 1 / self.N:.3g}, or lower N."
        )

    def target(self, bandit: Bandit) -> Array | None:
        """The fixed point that is reached from the reference; with vanished responses at `LOWEST`."""
        if self.alpha == 0:
            return best_rewarded(bandit)
        log_pi = bandit.log_ref
        for _ in range(MAX_FIXED_POINT_STEPS):
            before, log_pi = log_pi, self.step(bandit, log_pi)
            if np.allclose(log_pi, before, rtol=1e-13, atol=1e-12):
                return log_pi
        return None


class SelfPlay(Method):
    """Self-play without regularisation, WIND with beta = 0: pi_{t+1} ∝ pi_t·exp(eta·P(y > pi_t)).

    The exact form of SPPO (arXiv 2405.00675). On a reward order it ends at the best response, on a game that is
    not transitive it need not end anywhere.
    """

    name: Literal["self_play"] = "self_play"
    eta: PositiveFloat = Field(1.0, description="step size")

    def step(self, bandit: Bandit, log_pi: Array) -> Array:
        """See `Method.step`."""
        return normalise(log_pi + self.eta * bandit.game.win_rate(log_pi))

    def target(self, bandit: Bandit) -> Array | None:
        """The best response of a reward order."""
        return best_rewarded(bandit) if isinstance(bandit.game, RewardOrder) else None


class NashMD(Method):
    """Nash mirror descent: pi_{t+1} ∝ mu_t·exp(eta·P(y > mu_t)), mu_t ∝ pi_t^(1-eta·beta)·pi_ref^(eta·beta).

    Source: Munos et al., "Nash Learning from Human Feedback", arXiv 2312.00886. Unlike WIND it plays against a
    second policy, the mixture mu_t, and not against pi_t. Here eta is constant and not lowered with t, so the
    fixed point, at which pi = pi_ref·exp(P(y > mu)/beta)/Z, misses the equilibrium by a term of the order of eta.
    """

    name: Literal["nash_md"] = "nash_md"
    eta: PositiveFloat = Field(1.0, description="step size, at most 1/beta")

    def step(self, bandit: Bandit, log_pi: Array) -> Array:
        """See `Method.step`."""
        weight = self.eta * bandit.beta
        log_mu = normalise((1 - weight) * log_pi + weight * bandit.log_ref)
        return normalise(log_mu + self.eta * bandit.game.win_rate(log_mu))

    def unusable(self, beta: float) -> str | None:
        """The mixture needs eta·beta <= 1."""
        return _too_large(self.eta, beta)


class Extragradient(Method):
    """The strongest outside reference: `metrics.extragradient_step`. Needs two win rates a step.

    Its rate is proved for any eta up to 1/(1 + 2·beta), where WIND's is for eta <= beta.
    """

    name: Literal["extragradient"] = "extragradient"
    evaluations: ClassVar[int] = 2
    eta: PositiveFloat | None = Field(None, description="step size, at most 1/beta; absent: 1/(1 + 2·beta)")

    def step(self, bandit: Bandit, log_pi: Array) -> Array:
        """See `Method.step`."""
        eta = extragradient_step_size(bandit.beta) if self.eta is None else self.eta
        return extragradient_step(bandit, log_pi, eta)

    def unusable(self, beta: float) -> str | None:
        """The weight of the old policy, 1 - eta·beta, must not be negative."""
        return _too_large(self.eta or 0, beta)


def best_rewarded(bandit: Bandit) -> Array | None:
    """The reference restricted to the responses of highest reward, (n, Y); None without rewards."""
    if bandit.rewards is None:
        return None
    best = bandit.rewards == bandit.rewards.max(axis=1, keepdims=True)
    return normalise(np.where(best, bandit.log_ref, LOWEST))


def _too_large(eta: float, beta: float) -> str | None:
    if eta * beta <= 1:
        return None
    return f"eta = {eta:g} times beta = {beta:g} exceeds 1. Lower eta to {1 / beta:g} or less, or lower beta."


METHODS: dict[str, type[Method]] = {
    method.model_fields["name"].default: method for method in (Wind, Bond, SelfPlay, NashMD, Extragradient)
}
