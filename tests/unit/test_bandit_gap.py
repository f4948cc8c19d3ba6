"""The duality gap of the exact laboratory, and the best response that it is made of."""

from __future__ import annotations

import numpy as np
import pytest

from components.bandit.games import Bandit, PreferenceMatrix
from components.bandit.metrics import best_response, duality_gap
from components.bandit.policies import normalise
from components.bandit.solver import equilibrium
from support.bandits import noise, random_bandit


def brute_force_gap(preference, log_ref, beta, log_pi):
    """max over p of f(p, pi) - min over q of f(pi, q), f(p, q) = P(p > q) - beta·KL(p) + beta·KL(q), on a grid."""
    pi, ref = np.exp(log_pi), np.exp(log_ref)
    steps = 10**6 if len(pi) == 2 else 1000
    shares = [np.arange(1, steps) / steps] * (len(pi) - 1)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*shares)], 1)
    grid = np.concatenate([grid, 1 - grid.sum(1, keepdims=True)], 1)
    grid = grid[grid[:, -1] > 1e-9]
    to_ref = (grid * np.log(grid / ref)).sum(1)
    own = (pi * np.log(pi / ref)).sum()
    best = (grid @ preference @ pi - beta * to_ref).max() + beta * own
    worst = ((grid @ preference.T @ pi) + beta * to_ref).min() - beta * own
    return best - worst


@pytest.mark.parametrize(("y", "tolerance"), [(2, 1e-11), (3, 1e-5)])
def test_the_duality_gap_is_that_of_a_search_over_all_policies(y, tolerance):
    """The grid's spacing bounds how well it can agree: its error is of second order in it."""
    rng = np.random.default_rng(6)
    bandit = Bandit(PreferenceMatrix(noise(rng, y=y, ties=0)), normalise(rng.standard_normal((4, y))), 0.3)
    log_pi = normalise(rng.standard_normal((4, y)))
    expected = [
        brute_force_gap(P, ref, 0.3, pi)
        for P, ref, pi in zip(bandit.game.preference, bandit.log_ref, log_pi, strict=True)
    ]
    np.testing.assert_allclose(duality_gap(bandit, log_pi), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("beta", [0.02, 0.5])
def test_the_duality_gap_is_the_formula_and_zero_only_at_the_equilibrium(beta):
    """2·[beta·log Σ pi_ref exp(P(y > pi)/beta) + beta·KL(pi || pi_ref) - 1/2]."""
    bandit = random_bandit(7, beta)
    rng = np.random.default_rng(8)
    for spread in (0.01, 1.0, 5.0):
        log_pi = normalise(spread * rng.standard_normal((4, 50)))
        pi, ref = np.exp(log_pi), np.exp(bandit.log_ref)
        rate = np.einsum("nij,nj->ni", bandit.game.preference, pi)
        divergence = (pi * (log_pi - bandit.log_ref)).sum(1)
        expected = 2 * (beta * np.log((ref * np.exp(rate / beta)).sum(1)) + beta * divergence - 0.5)
        gap = duality_gap(bandit, log_pi)
        np.testing.assert_allclose(gap, expected, rtol=0, atol=1e-13)
        assert (gap > 1e-3 * beta).all()
    log_star = equilibrium(bandit)
    assert (duality_gap(bandit, log_star) >= 0).all()
    assert (duality_gap(bandit, log_star) < 1e-20).all()
    # A hair beside it, the gap is beta times the squared distance, not noise.
    beside = normalise(log_star + 1e-6 * rng.standard_normal((4, 50)))
    assert (duality_gap(bandit, beside) > 1e-14 * beta).all()


def test_the_best_response_is_best():
    """No policy of a thousand does better against pi."""
    bandit = random_bandit(9, 0.2)
    rng = np.random.default_rng(10)
    log_pi = normalise(rng.standard_normal((4, 50)))
    rate = bandit.game.win_rate(log_pi)

    def value(log_p):
        return (np.exp(log_p) * (rate - 0.2 * (log_p - bandit.log_ref))).sum(1)

    best = best_response(bandit, log_pi)
    for spread in np.geomspace(1e-3, 1, 1000):
        assert (value(normalise(best + spread * rng.standard_normal((4, 50)))) < value(best)).all()
