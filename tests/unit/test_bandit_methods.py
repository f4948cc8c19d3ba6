"""The exact methods: steps by hand, fixed points against their conditions, and the rate of WIND."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from components.bandit.games import Bandit, PreferenceMatrix, RewardOrder
from components.bandit.methods import METHODS, Bond, Extragradient, NashMD, SelfPlay, Wind
from components.bandit.metrics import best_response, duality_gap
from components.bandit.policies import kl, normalise
from components.bandit.solver import equilibrium
from components.config.errors import ConfigError

ROCK_PAPER_SCISSORS = np.array([[[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]])


def noise(rng, n=4, y=50, ties=0.2):
    """A preference that is not transitive, each pair for itself, with ties."""
    upper = np.triu(np.where(rng.random((n, y, y)) < ties, 0, rng.uniform(-0.5, 0.5, (n, y, y))), 1)
    return 0.5 + upper - upper.swapaxes(1, 2)


def random_bandit(seed, beta, n=4):
    rng = np.random.default_rng(seed)
    return Bandit(PreferenceMatrix(noise(rng, n=n)), normalise(rng.standard_normal((n, 50))), beta)


def reward_bandit(rewards, log_ref, beta=0.1):
    return Bandit(RewardOrder(rewards), log_ref, beta, rewards)


def after(method, bandit, iterations, log_pi=None):
    log_pi = bandit.log_ref if log_pi is None else log_pi
    for _ in range(iterations):
        log_pi = method.step(bandit, log_pi)
    return log_pi


def newton(preference, log_ref, beta):
    """pi* of one prompt: the root of z - P softmax(log pi_ref + z / beta), z the win rates, by damped Newton steps.

    beta comes down from 10 to its value, so that each root is near the one before.
    """

    def softmax(z, beta):
        weights = np.exp(log_ref + z / beta - (log_ref + z / beta).max())
        return weights / weights.sum()

    def miss(z, beta):
        return z - preference @ softmax(z, beta)

    z = preference @ np.exp(log_ref)
    for strength in np.geomspace(10, beta, 20):
        for _ in range(50):
            pi = softmax(z, strength)
            slope = np.eye(len(z)) - preference @ (np.diag(pi) - np.outer(pi, pi)) / strength
            step, length = np.linalg.solve(slope, -miss(z, strength)), 1.0
            while length > 1e-4 and np.abs(miss(z + length * step, strength)).max() > np.abs(miss(z, strength)).max():
                length /= 2
            z = z + length * step
    assert np.abs(miss(z, beta)).max() < 1e-14
    return softmax(z, beta)


@functools.cache
def solved(seed, beta, n):
    """A random bandit and its equilibrium by Newton's method, as log-probs."""
    bandit = random_bandit(seed, beta, n)
    pairs = zip(bandit.game.preference, bandit.log_ref, strict=True)
    return bandit, np.log([newton(preference, log_ref, beta) for preference, log_ref in pairs])


def assert_same_up_to_a_constant(values, tolerance):
    """Of each prompt."""
    assert np.ptp(values, axis=-1).max() < tolerance


TWO = Bandit(PreferenceMatrix(np.array([[[0.5, 1.0], [0.0, 0.5]]])), np.log([[0.5, 0.5]]), 0.5)


@pytest.mark.parametrize(
    ("method", "log_ratio"),
    [
        # The win rates are 3/4 and 1/4 against the reference; WIND divides by 1 + beta·eta = 2.
        (Wind(eta=2.0), 2.0 * 0.5 / 2),
        (SelfPlay(eta=2.0), 2.0 * 0.5),
        (NashMD(eta=2.0), 2.0 * 0.5),
        # Against any policy the first wins by 1/2, also against the trial.
        (Extragradient(eta=2.0), 2.0 * 0.5),
        (Extragradient(), 0.5 * 0.5),
    ],
)
def test_first_step_by_hand(method, log_ratio):
    step = method.step(TWO, TWO.log_ref)
    assert step[0, 0] - step[0, 1] == pytest.approx(log_ratio, abs=1e-14)
    assert np.exp(step).sum() == pytest.approx(1, abs=1e-14)


def test_second_step_by_hand():
    """From log-ratio 1, the reference's being 0, with beta = 1/2; the first response wins by 1/2 as always."""
    one = normalise(np.array([[1.0, 0.0]]))
    for method, log_ratio in [
        (Wind(eta=1.0), (1 + 0.5) / 1.5),
        (SelfPlay(eta=1.0), 1 + 0.5),
        (NashMD(eta=1.0), 0.5 * 1 + 0.5),
        (Extragradient(eta=1.0), 0.5 * 1 + 0.5),
    ]:
        step = method.step(TWO, one)
        assert step[0, 0] - step[0, 1] == pytest.approx(log_ratio, abs=1e-14), method


def test_bond_steps_by_hand():
    """The better of two of (1/2, 1/2) is the first with 3/4; mixed half and half in logs its ratio is sqrt(3)."""
    bandit = reward_bandit(np.array([[1.0, 0.0]]), np.log([[0.5, 0.5]]))
    np.testing.assert_allclose(np.exp(Bond(N=2).step(bandit, bandit.log_ref)), [[0.75, 0.25]], rtol=0, atol=1e-15)
    mixed = Bond(N=2, alpha=0.5).step(bandit, bandit.log_ref)
    assert mixed[0, 0] - mixed[0, 1] == pytest.approx(math.log(3) / 2, abs=1e-14)


def test_nash_md_plays_against_its_mixture():
    """Rock, paper, scissors, uniform reference, eta·beta = 1/2: mu ∝ sqrt(pi), and pi_{t+1} ∝ mu·exp(eta·P mu)."""
    pi = np.array([0.7, 0.2, 0.1])
    mu = np.sqrt(pi) / np.sqrt(pi).sum()
    expected = mu * np.exp(1.0 * ROCK_PAPER_SCISSORS[0] @ mu)
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), np.log(np.full((1, 3), 1 / 3)), 0.5)
    got = np.exp(NashMD(eta=1.0).step(bandit, np.log(pi)[None]))
    np.testing.assert_allclose(got[0], expected / expected.sum(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5])
def test_the_equilibrium_is_its_own_best_response(beta):
    """pi* ∝ pi_ref·exp(P(· > pi*)/beta), for the equilibrium and for where WIND itself ends."""
    bandit = random_bandit(0, beta)
    ends = after(Wind(eta=10 * beta), bandit, math.ceil(60 / math.log1p(10 * beta**2)))
    for log_pi in (equilibrium(bandit), ends):
        rate = np.einsum("nij,nj->ni", bandit.game.preference, np.exp(log_pi))
        weights = np.exp(bandit.log_ref) * np.exp(rate / beta)
        np.testing.assert_allclose(np.exp(log_pi), weights / weights.sum(1, keepdims=True), rtol=0, atol=1e-10)
        assert_same_up_to_a_constant(log_pi - bandit.log_ref - rate / beta, 1e-10)


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5])
def test_the_equilibrium_is_the_one_that_newton_finds(beta):
    bandit, log_star = solved(seed=1, beta=beta, n=3)
    np.testing.assert_allclose(np.exp(equilibrium(bandit)), np.exp(log_star), rtol=0, atol=1e-12)


@pytest.mark.parametrize("multiple", [1, 3, 10])
@pytest.mark.parametrize("beta", [0.02, 0.05, 0.1, 0.25, 0.5])
def test_wind_converges_linearly(beta, multiple):
    """KL(pi* || pi_t) <= (1 + beta·eta)^(-t)·KL(pi* || pi_0), with eta = beta and more."""
    bandit, log_star = solved(seed=0, beta=beta, n=6)
    log_pi, start, eta = bandit.log_ref, kl(log_star, bandit.log_ref), multiple * beta
    for t in range(1, 301):
        log_pi = Wind(eta=eta).step(bandit, log_pi)
        # The solver's own error leaves a KL of about 1e-24.
        assert (kl(log_star, log_pi) <= start * (1 + beta * eta) ** -t + 1e-22).all(), t


@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_rock_paper_scissors_with_a_uniform_reference_stays_uniform(eta):
    uniform = np.log(np.full((1, 3), 1 / 3))
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), uniform, 0.1)
    log_pi = uniform
    for _ in range(200):
        log_pi = Wind(eta=eta).step(bandit, log_pi)
        np.testing.assert_allclose(np.exp(log_pi), 1 / 3, rtol=0, atol=1e-15)
    back = after(Wind(eta=0.5), bandit, 2000, normalise(np.array([[2.0, 0.0, -1.0]])))
    np.testing.assert_allclose(np.exp(back), 1 / 3, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reference", [[0.6, 0.3, 0.1], [0.98, 0.01, 0.01]])
def test_rock_paper_scissors_with_a_skewed_reference_is_solved(reference):
    log_ref, beta = np.log([reference]), 0.1
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), log_ref, beta)
    expected = newton(ROCK_PAPER_SCISSORS[0], log_ref[0], beta)
    assert np.abs(expected - 1 / 3).max() > 0.02
    for log_pi in (equilibrium(bandit), after(Wind(eta=beta), bandit, 5000), after(Extragradient(), bandit, 500)):
        np.testing.assert_allclose(np.exp(log_pi[0]), expected, rtol=0, atol=1e-12)


def test_nash_md_with_a_constant_step_misses_the_equilibrium_by_the_order_of_eta():
    bandit = random_bandit(2, 0.2)
    star = np.exp(equilibrium(bandit))
    misses = [np.abs(np.exp(after(NashMD(eta=eta), bandit, 4000)) - star).max() for eta in (0.1, 0.2)]
    assert misses[0] > 1e-5
    assert misses[1] / misses[0] == pytest.approx(2, rel=0.1)


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


def test_self_play_never_settles_on_rock_paper_scissors():
    log_ref = np.log([[0.6, 0.3, 0.1]])
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), log_ref, 0.1)
    assert SelfPlay().target(bandit) is None
    winners = [int(after(SelfPlay(), bandit, t).argmax()) for t in range(0, 300, 3)]
    assert set(winners) == {0, 1, 2}


def test_bond_on_a_preference_matrix_is_refused():
    with pytest.raises(ConfigError, match="bond needs a reward order"):
        Bond().step(TWO, TWO.log_ref)


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


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_policies_normalised(name):
    rng = np.random.default_rng(11)
    bandit = reward_bandit(rng.integers(9, size=(3, 20)).astype(float), normalise(rng.standard_normal((3, 20))))
    log_pi = after(METHODS[name](), bandit, 50)
    np.testing.assert_allclose(np.exp(log_pi).sum(1), 1, rtol=0, atol=1e-12)
