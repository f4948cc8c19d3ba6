"""One sampled WIND iteration on a log-linear bandit, and how its error falls with the number of samples.

Policies are softmax of features (n, Y, d) times parameters (d,). With the preference P(y > y') = 1/2 + a(y) - a(y'),
a = features·weights, the win rate P(y > pi) = 1/2 + a(y) - E_pi a is linear in the features for every policy, and the
exact update stays in the class. So the only error of an iteration is that of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.algorithms import leave_one_out
from components.bandit.policies import Array, normalise, total_variation


@dataclass(frozen=True)
class LogLinear:
    """A log-linear contextual bandit at the start of an iteration."""

    features: Array  # (n, Y, d)
    weights: Array  # (d,), of the preference; features·weights in [-1/4, 1/4]
    theta_ref: Array  # (d,), the reference's parameters
    theta_old: Array  # (d,), those of pi_t
    beta: float  # KL strength
    eta: float  # step size

    def log_policy(self, theta: Array) -> Array:
        """Log-probs (n, Y) of the policy with parameters (d,)."""
        return normalise(self.features @ theta)

    def update(self, slope: Array) -> Array:
        """Parameters of pi_{t+1}, (d,), if P(y > pi_t) = features·slope + a constant of the prompt.

        The exact update of log-probs carries over to the parameters, normalisers aside.
        """
        pull = self.beta * self.eta
        new: Array = (self.theta_old + pull * self.theta_ref + self.eta * slope) / (1 + pull)
        return new


def random_log_linear(
    rng: np.random.Generator, *, prompts: int, responses: int, features: int, beta: float, eta: float
) -> LogLinear:
    """A bandit with normal features and parameters; pi_t differs from the reference."""
    phi = rng.standard_normal((prompts, responses, features))
    weights = rng.standard_normal(features)
    weights /= 4 * np.abs(phi @ weights).max()
    theta_ref, change = rng.standard_normal((2, features)) / 2
    return LogLinear(phi, weights, theta_ref, theta_ref + change, beta, eta)


def sampled_iteration(bandit: LogLinear, samples: int, group: int, rng: np.random.Generator) -> Array:
    """Parameters of pi_{t+1}, (d,), learned from `samples` responses of pi_t by least squares.

    Prompts are drawn uniformly, `group` responses (K) to each, and every pair is judged once: a win or a loss. The
    squared risk Σ (s - v)² is minimised over s = 1/2 + (features - E_{pi_t} features)·slope, with v the leave-one-out
    win rate. E_{pi_t} s = 1/2 fixes the normaliser c(x) exactly, because E_{pi_t} P(y > pi_t) = 1/2.

    Raises ValueError if the samples do not fill groups of two or more.
    """
    if group < 2 or samples < group or samples % group:
        raise ValueError(f"samples ({samples}) must be a multiple of the group ({group}), which must be 2 or more.")
    prompts = rng.integers(len(bandit.features), size=samples // group)
    pi = np.exp(bandit.log_policy(bandit.theta_old))
    drawn = draw(pi, prompts, group, rng)
    win_rate = leave_one_out(judge(bandit, prompts, drawn, rng))
    centred = bandit.features - np.einsum("ny,nyd->nd", pi, bandit.features)[:, None]
    rows = centred[prompts[:, None], drawn].reshape(samples, -1)
    slope: Array = np.linalg.lstsq(rows, win_rate.ravel() - 0.5)[0]
    return bandit.update(slope)


def draw(pi: Array, prompts: NDArray[np.int64], group: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`group` responses to each of m prompts, independent draws of pi (n, Y): indices (m, group)."""
    n, y = pi.shape
    cumulative = np.cumsum(pi, axis=1)
    cumulative /= cumulative[:, -1:]
    # One sorted list for all prompts: prompt i has the interval from i to i + 1.
    place = np.searchsorted(
        (cumulative + np.arange(n)[:, None]).ravel(), prompts[:, None] + rng.random((len(prompts), group)), side="right"
    )
    drawn: NDArray[np.int64] = np.clip(place - y * prompts[:, None], 0, y - 1)
    return drawn


def judge(bandit: LogLinear, prompts: NDArray[np.int64], drawn: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Wins of each response over each other of its group: (m, K, K) of 0, 1 and, on the diagonal, 1/2."""
    score = bandit.features[prompts[:, None], drawn] @ bandit.weights
    preference = 0.5 + score[:, :, None] - score[:, None, :]
    won = np.triu(rng.random(preference.shape) < preference, 1).astype(np.float64)
    lost = np.tril(1 - won.swapaxes(1, 2), -1)
    wins: Array = won + lost + np.eye(drawn.shape[1]) / 2
    return wins


def error(bandit: LogLinear, theta: Array) -> float:
    """Mean total variation, over the prompts, between a policy and the exact update."""
    exact = bandit.log_policy(bandit.update(bandit.weights))
    return float(total_variation(bandit.log_policy(theta), exact).mean())


def fitted_slope(samples: Sequence[float] | Array, errors: Sequence[float] | Array) -> float:
    """Slope of log(error) over log(samples), by least squares; -1/2 is the Monte Carlo rate."""
    x = np.log(np.asarray(samples, dtype=np.float64))
    y = np.log(np.asarray(errors, dtype=np.float64))
    x = x - x.mean()
    return float(x @ y / (x @ x))
