"""Win rate at equal length, after AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475).

Over a leaderboard's verdicts the paper fits

    logit P(y beats y') = (theta_m - theta_b) + phi · tanh(length difference, standardised) + (psi_m - psi_b) · gamma_x

and predicts at length difference 0. Of one run's own data this fits theta and phi:

* theta, of the policy against the reference: what is asked for.
* phi, by all pairs of an evaluation: also by two responses of the policy and two of the reference, between which theta
  is 0. They tell what length alone wins, also where all of the policy's responses are the longer ones.
* no gamma_x, the difficulty of prompt x: the paper takes it from all models of its leaderboard. Two policies' verdicts
  on one prompt cannot tell it from chance.

The difference is divided by its root mean square, which is the paper's standard deviation where policies are equally
long; a policy that is always longer by about as much would have a small deviation, and tanh told nothing apart. Lengths
are in tokens, the paper's in characters.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from components.evaluation.intervals import t_quantile
from components.evaluation.metrics import WinRate

# Verdicts that agree with one another throughout have no finite fit. A tie at equal length and a penalty of next to no
# weight give them one. The tie weighs more: where policy and length cannot be told apart, length has it.
TIE, RIDGE = 1e-2, 1e-6  # prompts
STEPS, HALVINGS, FLAT = 200, 40, 1e-9  # Newton's steps; gradient per prompt at which they end

Array = NDArray[np.float64]


def win_rate(preference: Array, length: Array, ours: slice, theirs: slice) -> WinRate:
    """Win rate of a policy against a rival, were their responses equally long; with its 95 % interval.

    The interval is that of theta with prompts as clusters (Liang and Zeger 1986), and as `intervals.rate_interval` with
    two more prompts, one won and one lost at equal length: without them verdicts that all agree would be certain. Of a
    single prompt it is (0, 1).

    Args:
        preference: (n, K, K), P(y_i > y_j).
        length: (n, K), tokens.
        ours: the columns of the policy.
        theirs: the columns of its rival.
    """
    policy, wins, difference, weight = _pairs(preference, length, ours, theirs)
    n = len(preference)
    features = np.stack([np.broadcast_to(policy, difference.shape), np.tanh(difference)], axis=-1)
    theta = _fit(features, wins, weight, tie=TIE)[0]
    rate = _sigmoid(theta)
    if n < 2:
        return WinRate(rate, 0.0, 1.0)
    low, high = _interval(features, wins, weight)
    return WinRate(rate, min(rate, low), max(rate, high))


def _pairs(preference: Array, length: Array, ours: slice, theirs: slice) -> tuple[Array, Array, Array, float]:
    """Each pair of responses once: whether it is the policy's against the rival's, (P,), who wins and by how much
    longer it is, both (n, P), and what one weighs where all pairs of policy and rival in a prompt weigh 1.
    """
    columns = np.arange(preference.shape[1])
    own, rival = columns[ours], columns[theirs]
    across = [(a, b) for a in own for b in rival]
    alike = [(a, b) for side in (own, rival) for at, a in enumerate(side) for b in side[at + 1 :]]
    first, second = np.array([*across, *alike]).T
    difference = length[:, first] - length[:, second]
    spread = math.sqrt(float((difference[:, : len(across)] ** 2).mean()))
    scaled = difference / spread if spread > 0 else np.zeros_like(difference)
    policy = np.repeat([1.0, 0.0], [len(across), len(alike)])
    return policy, preference[:, first, second], scaled, 1 / len(across)


def _fit(features: Array, wins: Array, weight: float, tie: float) -> Array:
    """(theta, phi) of most likelihood, with a tie of such weight at equal length and `RIDGE` on both squares.

    Args:
        features: (n, P, 2).
        wins: (n, P), in [0, 1].
        weight: of each.
        tie: weight.
    """
    x = np.concatenate([features.reshape(-1, 2), [[1.0, 0.0]]])
    y, w = np.append(wins, 0.5), np.append(np.full(wins.size, weight), tie)
    found = np.zeros(2)
    for _ in range(STEPS):
        p = _sigmoids(x @ found)
        gradient = x.T @ (w * (y - p)) - RIDGE * found
        if np.abs(gradient).max() < FLAT * w.sum():
            break
        step = np.linalg.solve((x.T * (w * p * (1 - p))) @ x + RIDGE * np.eye(2), gradient)
        # Where verdicts hardly disagree the parabola is wide, and its top further away than numbers go.
        step *= min(1.0, max(1.0, float(np.abs(found).max())) / float(np.abs(step).max()))
        found = _uphill(found, step, x, y, w)
    return found


def _uphill(begin: Array, step: Array, x: Array, y: Array, w: Array) -> Array:
    """As far along Newton's step as likelihood rises."""
    before = _likelihood(begin, x, y, w)
    for _ in range(HALVINGS):
        if _likelihood(begin + step, x, y, w) >= before:
            return begin + step
        step = step / 2
    return begin


def _likelihood(at: Array, x: Array, y: Array, w: Array) -> float:
    logit = x @ at
    return float((w * (y * logit - np.logaddexp(0, logit))).sum() - RIDGE / 2 * at @ at)


def _interval(features: Array, wins: Array, weight: float) -> tuple[float, float]:
    """Of the win rate at equal length, with a prompt won and one lost there."""
    n = len(wins)
    at = _fit(features, wins, weight, tie=2.0)
    p = _sigmoids(features @ at)
    information = np.einsum("npi,npj,np->ij", features, features, weight * p * (1 - p))
    even = _sigmoid(at[0])
    information += np.diag([2 * even * (1 - even), 0.0]) + RIDGE * np.eye(2)
    scores = np.einsum("npi,np->ni", features, weight * (wins - p))
    scores = np.concatenate([scores, [[1 - even, 0.0], [-even, 0.0]]])
    pull = np.linalg.solve(information, scores.T)[0]
    half = t_quantile(n + 1) * math.sqrt((n + 2) / (n + 1) * float(pull @ pull))
    return _sigmoid(at[0] - half), _sigmoid(at[0] + half)


def _sigmoids(logit: Array) -> Array:
    rates: Array = np.exp(-np.logaddexp(0, -logit))
    return rates


def _sigmoid(logit: float) -> float:
    return float(_sigmoids(np.array(logit)))
