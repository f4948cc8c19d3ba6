"""BOND in the exact laboratory: the conditions at which it ends."""

from __future__ import annotations

import numpy as np
import pytest

from components.bandit.methods import Bond, SelfPlay
from components.bandit.policies import normalise
from components.config.errors import ConfigError
from support.bandits import TWO, after, assert_same_up_to_a_constant, reward_bandit


def bond_fixed_point(N, alpha, rewards, log_ref):
    """The method's target, F(< y) and F(<= y) there by comparing all pairs, and b."""
    bandit = reward_bandit(rewards, log_ref)
    log_pi = Bond(N=N, alpha=alpha).target(bandit)
    np.testing.assert_allclose(Bond(N=N, alpha=alpha).step(bandit, log_pi), log_pi, rtol=0, atol=1e-11)
    below = ((rewards[:, None, :] < rewards[:, :, None]) * np.exp(log_pi)[:, None]).sum(-1)
    up_to = ((rewards[:, None, :] <= rewards[:, :, None]) * np.exp(log_pi)[:, None]).sum(-1)
    return log_pi, below, up_to, alpha / ((1 - alpha) * (N - 1))


@pytest.mark.parametrize("alpha", [0.55, 0.7, 0.9])
@pytest.mark.parametrize("levels", [10, 10**6])
def test_bond_with_two_responses_ends_at_the_log_win_rate_condition(alpha, levels):
    """log pi = log pi_ref + log P(y > pi) / b + const, exact for N = 2: BoN_2(y) = 2·pi(y)·P(y > pi), ties 1/2."""
    rng = np.random.default_rng(3)
    rewards, log_ref = rng.integers(levels, size=(3, 40)).astype(float), normalise(rng.standard_normal((3, 40)))
    log_pi, below, up_to, b = bond_fixed_point(2, alpha, rewards, log_ref)
    assert_same_up_to_a_constant(log_pi - log_ref - np.log((below + up_to) / 2) / b, 1e-8)


@pytest.mark.parametrize(("N", "alpha"), [(3, 0.7), (4, 0.8), (8, 0.9), (16, 0.95)])
def test_bond_with_more_responses_ends_at_the_condition_with_the_mean_power_of_f(N, alpha):
    """P(y > pi)^(N-1) is replaced by the mean of N·F^(N-1) over F from F(< y) to F(<= y), divided by N.

    BoN_N(y) / pi(y) is the sum of F(<= y)^k·F(< y)^(N-1-k) over k = 0 … N-1, here summed term by term.
    """
    rng = np.random.default_rng(4)
    rewards, log_ref = rng.standard_normal((3, 40)), normalise(rng.standard_normal((3, 40)))
    log_pi, below, up_to, b = bond_fixed_point(N, alpha, rewards, log_ref)
    power = sum(up_to**k * below ** (N - 1 - k) for k in range(N)) / N
    assert_same_up_to_a_constant(log_pi - log_ref - np.log(power) / (b * (N - 1)), 1e-8)


def literal_residual(y):
    """Of log pi = log pi_ref + log P(y > pi) / b + const, over the better half, N = 4, a reference without bumps."""
    place = (np.arange(y) + 0.5) / y
    log_ref = normalise(np.sin(2 * place)[None])
    log_pi = Bond(N=4, alpha=0.9).target(reward_bandit(place[None], log_ref))
    pi = np.exp(log_pi[0])
    rate = np.cumsum(pi) - pi / 2
    b = 0.9 / (0.1 * 3)
    return np.ptp((log_pi[0] - log_ref[0] - np.log(rate) / b)[rate > 0.5])


def test_bond_approaches_the_log_win_rate_condition_as_responses_lose_their_mass():
    """The condition with P(y > pi) itself: a midpoint rule, so its error falls as Y^-2; below 1e-8 at Y = 20,000."""
    residuals = [literal_residual(y) for y in (100, 200, 400)]
    assert residuals[0] / residuals[1] == pytest.approx(4, rel=0.1)
    assert residuals[1] / residuals[2] == pytest.approx(4, rel=0.1)
    assert literal_residual(20_000) < 1e-8


@pytest.mark.parametrize("N", [2, 5])
def test_bond_without_mixing_is_best_of_n_to_the_t_and_ends_at_the_best(N):
    rng = np.random.default_rng(5)
    rewards, log_ref = rng.integers(9, size=(2, 30)).astype(float), normalise(rng.standard_normal((2, 30)))
    bandit = reward_bandit(rewards, log_ref)
    np.testing.assert_allclose(after(Bond(N=N), bandit, 3), bandit.game.best_of(log_ref, N**3), rtol=1e-11, atol=1e-11)
    best = (rewards == rewards.max(1, keepdims=True)) * np.exp(log_ref)
    best /= best.sum(1, keepdims=True)
    for log_pi in (after(Bond(N=N), bandit, 2000), Bond(N=N).target(bandit), after(SelfPlay(eta=5), bandit, 2000)):
        assert np.isfinite(log_pi).all()
        np.testing.assert_allclose(np.exp(log_pi), best, rtol=0, atol=1e-12)


def test_bond_on_a_preference_matrix_is_refused():
    with pytest.raises(ConfigError, match="bond needs a reward order"):
        Bond().step(TWO, TWO.log_ref)
