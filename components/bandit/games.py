"""Preferences between responses: a reward order or any preference matrix, and the bandit that they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.bandit.policies import Array


class Game(ABC):
    """P(y > y') for each pair of the Y responses to each of n prompts."""

    shape: tuple[int, int]  # (n, Y)

    @abstractmethod
    def win_rate(self, log_pi: Array) -> Array:
        """P(y > pi) = E_{y' ~ pi} P(y > y') in [0, 1] of every response, shape (n, Y)."""

    @abstractmethod
    def against(self, prompt: int, rivals: NDArray[np.int64]) -> Array:
        """P(y > y') of every response to one prompt against m of them, given by their indices: shape (Y, m)."""


class PreferenceMatrix(Game):
    """Any preference, also one that is not transitive. A win rate costs O(n Y²)."""

    def __init__(self, preference: Array) -> None:
        """Args: preference is (n, Y, Y), P(y > y') in [0, 1], float64.

        Raises ValueError unless P(y > y') + P(y' > y) = 1, which makes a tie, as of y with itself, 1/2.
        """
        if preference.ndim != 3 or preference.shape[1] != preference.shape[2]:
            raise ValueError(f"a preference matrix must have the shape (n, Y, Y), not {preference.shape}.")
        for prompt, one in enumerate(preference):  # one by one: the matrix may fill most of the memory
            if not (one.min() >= 0 and one.max() <= 1):  # NaN is refused too
                raise ValueError(f"prompt {prompt}: preference probabilities must lie in [0, 1].")
            if np.abs(one + one.T - 1).max() > 1e-12:
                raise ValueError(f"prompt {prompt}: P(y > y') + P(y' > y) must be 1, so P(y > y) = 1/2.")
        self.preference = preference
        self.shape = preference.shape[:2]

    def win_rate(self, log_pi: Array) -> Array:
        """See `Game.win_rate`."""
        # Not a BLAS call: bound by memory, BLAS is hardly faster, and its threads stall when they share a busy core.
        rate: Array = np.einsum("nij,nj->ni", self.preference, np.exp(log_pi))
        return rate

    def against(self, prompt: int, rivals: NDArray[np.int64]) -> Array:
        """See `Game.against`."""
        preference: Array = self.preference[prompt][:, rivals]
        return preference


class RewardOrder(Game):
    """The response with more reward wins, equal rewards tie. Sorted once; then a step costs O(n Y)."""

    def __init__(self, rewards: Array) -> None:
        """Args: rewards is (n, Y), any finite numbers, of which only the order within a prompt counts."""
        if not np.isfinite(rewards).all():
            raise ValueError("rewards must be finite numbers.")
        n, y = self.shape = rewards.shape[0], rewards.shape[1]
        order = np.argsort(rewards, axis=1)
        ranked = np.take_along_axis(rewards, order, axis=1)
        new_tie = np.ones((n, y), dtype=bool)
        new_tie[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        # Ties are numbered over all prompts; each prompt begins with one of its own. All indices are flat.
        self._order = (order + y * np.arange(n)[:, None]).ravel()
        self._starts = np.flatnonzero(new_tie)
        self._ends = np.append(self._starts[1:], n * y) - 1
        self._tie = np.empty(n * y, dtype=np.int64)
        self._tie[self._order] = np.cumsum(new_tie.ravel()) - 1

    def win_rate(self, log_pi: Array) -> Array:
        """P(y > pi) = F(<= y) - P(tie with y) / 2, with F the cumulative mass in reward order. See `Game.win_rate`."""
        mass = self._ranked(np.exp(log_pi))
        up_to = np.cumsum(mass, axis=1).ravel()[self._ends]
        return self._spread(up_to - np.add.reduceat(mass.ravel(), self._starts) / 2)

    def against(self, prompt: int, rivals: NDArray[np.int64]) -> Array:
        """See `Game.against`."""
        tie = self._tie.reshape(self.shape)[prompt]
        preference: Array = np.heaviside(tie[:, None] - tie[rivals].astype(np.float64), 0.5)
        return preference

    def best_of(self, log_pi: Array, N: float) -> Array:
        """Log-probs of BoN_N, the best of N independent responses of pi, shape (n, Y).

        BoN_N(tie) = F(<= tie)^N - F(< tie)^N, which its responses share in proportion to pi. Computed in the log
        domain: N may be 1e6, and the result may vanish in ordinary floats.

        Args:
            log_pi: the policy, (n, Y).
            N: how many responses, >= 1.
        """
        ranked = self._ranked(log_pi)
        mass = np.logaddexp.reduceat(ranked.ravel(), self._starts)
        up_to = np.logaddexp.accumulate(ranked, axis=1)
        share = np.minimum(mass - up_to.ravel()[self._ends], 0)  # of the tie in F(<= tie)
        up_to = (up_to - up_to[:, -1:]).ravel()[self._ends]  # F of all responses is 1, whatever rounding says
        won = N * up_to + _log_at_least_one(share, N)
        return log_pi + self._spread(won - mass)

    def _ranked(self, values: Array) -> Array:
        """Values (n, Y) in reward order."""
        ranked: Array = values.ravel()[self._order].reshape(self.shape)
        return ranked

    def _spread(self, values: Array) -> Array:
        """One value per tie to each of its responses, (n, Y)."""
        spread: Array = values[self._tie].reshape(self.shape)
        return spread


def _log_at_least_one(log_x: Array, N: float) -> Array:
    """log(1 - (1 - x)^N): of N draws, at least one is an event of probability x."""
    with np.errstate(divide="ignore"):  # x = 1, and x that underflows to 0
        exact: Array = np.log(-np.expm1(N * np.log1p(-np.exp(log_x))))
    return np.where(log_x < -600, np.log(N) + log_x, exact)


@dataclass(frozen=True)
class Bandit:
    """The game E P(y > pi') - beta·KL(pi || pi_ref) + beta·KL(pi' || pi_ref), for each of n prompts."""

    game: Game
    log_ref: Array  # the reference, (n, Y)
    beta: float  # KL strength, > 0
    rewards: Array | None = None  # (n, Y), where the preferences come from rewards
