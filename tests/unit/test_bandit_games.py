"""Win rates and best-of-N against enumeration, and what a preference matrix must be."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from components.bandit.games import PreferenceMatrix, RewardOrder
from components.bandit.policies import kl, normalise, total_variation


def policy(rng, n, y, spread=2.0):
    return normalise(spread * rng.standard_normal((n, y)))


def preference_of(rewards):
    """P(y > y') of a reward order, ties 1/2, by comparing every pair."""
    margin = rewards[:, :, None] - rewards[:, None, :]
    return (margin > 0) + 0.5 * (margin == 0)


def best_of_by_enumeration(pi, rewards, N):
    """The best of every N-tuple of responses; those that share the top reward are chosen with equal chance."""
    best = np.zeros(len(pi))
    for drawn in itertools.product(range(len(pi)), repeat=N):
        top = [y for y in drawn if rewards[y] == max(rewards[list(drawn)])]
        for y in top:
            best[y] += math.prod(pi[list(drawn)]) / len(top)
    return best


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
@pytest.mark.parametrize("y", [1, 2, 60])
def test_win_rates_of_a_reward_order_are_those_of_its_matrix(levels, y):
    rng = np.random.default_rng(levels)
    rewards = rng.integers(levels, size=(5, y)).astype(float)
    log_pi = policy(rng, 5, y)
    expected = np.einsum("nij,nj->ni", preference_of(rewards), np.exp(log_pi))
    np.testing.assert_allclose(RewardOrder(rewards).win_rate(log_pi), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(PreferenceMatrix(preference_of(rewards)).win_rate(log_pi), expected, rtol=0, atol=1e-12)


def test_win_rates_by_hand():
    """pi = (0.5, 0.3, 0.2), rewards 2 > 1 = 1: the first wins 0.25 + 0.5, the others win half of 0.5."""
    rate = RewardOrder(np.array([[2.0, 1.0, 1.0]])).win_rate(np.log([[0.5, 0.3, 0.2]]))
    np.testing.assert_allclose(rate, [[0.75, 0.25, 0.25]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("N", [1, 2, 3, 4])
@pytest.mark.parametrize("rewards", [[3, 1, 2], [1, 1, 1, 1], [0, 2, 1, 2, 0], [5, 4, 3, 2, 1], [1, 2, 2, 2, 3], [7]])
def test_best_of_n_is_that_of_all_tuples(N, rewards):
    rewards = np.array(rewards, dtype=float)
    rng = np.random.default_rng(N)
    log_pi = policy(rng, 3, len(rewards), spread=1.0)
    got = np.exp(RewardOrder(np.tile(rewards, (3, 1))).best_of(log_pi, N))
    expected = [best_of_by_enumeration(np.exp(row), rewards, N) for row in log_pi]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_prompts_have_their_own_order():
    rng = np.random.default_rng(0)
    rewards, log_pi = rng.integers(3, size=(4, 5)).astype(float), policy(rng, 4, 5)
    together = RewardOrder(rewards).best_of(log_pi, 3)
    alone = [RewardOrder(r[None]).best_of(row[None], 3)[0] for r, row in zip(rewards, log_pi, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("N", [5, 1000, 1_000_000])
def test_best_of_a_large_n_is_precise_far_below_the_smallest_float(N):
    """F(<= y)^N - F(< y)^N of pi = (1/2, 1/4, 1/8, 1/8) in ascending order, to 50 digits."""
    F = [Decimal(0), Decimal("0.5"), Decimal("0.75"), Decimal("0.875"), Decimal(1)]
    with localcontext(prec=50, Emin=-999_999):
        expected = [float((F[i + 1] ** N - F[i] ** N).ln()) for i in range(4)]
    log_pi = np.log([[0.5, 0.25, 0.125, 0.125]])
    got = RewardOrder(np.arange(4.0)[None]).best_of(log_pi, N)
    np.testing.assert_allclose(got[0], expected, rtol=1e-14, atol=1e-15)


def test_best_of_n_of_a_response_that_all_but_vanishes():
    """The worst response is best of N only if it is drawn N times; a rare best one is drawn once in about 1/N pi."""
    log_pi = normalise(np.array([[-2000.0, 0.0, -3000.0]]))
    got = RewardOrder(np.array([[0.0, 1.0, 2.0]])).best_of(log_pi, 8)
    np.testing.assert_allclose(got, [[-16000.0, 0.0, -3000.0 + math.log(8)]], rtol=1e-13, atol=1e-12)


def test_best_of_best_of():
    """The best of 3 of best-of-4 policies is the best of 12."""
    rng = np.random.default_rng(1)
    game, log_pi = RewardOrder(rng.integers(30, size=(3, 80)).astype(float)), policy(rng, 3, 80)
    twice = game.best_of(game.best_of(log_pi, 4), 3)
    np.testing.assert_allclose(twice, game.best_of(log_pi, 12), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ([[0.5, 0.7], [0.4, 0.5]], "prompt 0: P(y > y') + P(y' > y) must be 1, so P(y > y) = 1/2."),
        ([[0.0, 0.7], [0.3, 0.5]], "P(y > y) = 1/2"),
        ([[0.5, 1.5], [-0.5, 0.5]], "prompt 0: preference probabilities must lie in [0, 1]."),
        ([[0.5, np.nan], [np.nan, 0.5]], "must lie in [0, 1]"),
        ([[0.5, 0.5]], "must have the shape (n, Y, Y), not (1, 1, 2)."),
    ],
)
def test_a_matrix_that_is_no_preference_is_refused(preference, message):
    with pytest.raises(ValueError) as caught:
        PreferenceMatrix(np.array([preference]))
    assert message in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rewards_without_an_order_are_refused(bad):
    with pytest.raises(ValueError, match=r"^rewards must be finite numbers\.$"):
        RewardOrder(np.array([[0.0, bad]]))


def test_kl_and_total_variation_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4): KL = log 2 / 2 + log(2/3) / 2, total variation 1/4."""
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert kl(p, q)[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-15)
    assert kl(p, p)[0] == 0
    assert total_variation(p, q)[0] == pytest.approx(0.25, abs=1e-15)


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9, 1e-12])
def test_a_tiny_kl_is_precise(step):
    """Of (1/2, 1/2) from softmax(step, -step): log cosh(step) = step²/2 - step⁴/12 + …"""
    got = kl(np.log([[0.5, 0.5]]), normalise(np.array([[step, -step]])))[0]
    assert got == pytest.approx(step**2 / 2 - step**4 / 12, rel=1e-3)


def test_kl_from_a_policy_that_all_but_vanishes():
    """p = (1, 0), log q = (-1000, 0): KL = 1000."""
    assert kl(normalise(np.array([[0.0, -5000.0]])), normalise(np.array([[-1000.0, 0.0]])))[0] == 1000
