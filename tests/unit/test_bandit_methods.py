"""The exact methods: steps by hand, fixed points against their conditions, and the rate of WIND."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from components.bandit.games import Bandit, PreferenceMatrix
from components.bandit.methods import METHODS, Bond, Extragradient, NashMD, SelfPlay, Wind
from components.bandit.policies import kl, normalise
from components.bandit.solver import equilibrium
from support.bandits import TWO, after, assert_same_up_to_a_constant, random_bandit, reward_bandit

ROCK_PAPER_SCISSORS = np.array([[[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]])


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


@pytest.mark.thorough(but=["0.1"])
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


def test_self_play_never_settles_on_rock_paper_scissors():
    log_ref = np.log([[0.6, 0.3, 0.1]])
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), log_ref, 0.1)
    assert SelfPlay().target(bandit) is None
    winners = [int(after(SelfPlay(), bandit, t).argmax()) for t in range(0, 300, 3)]
    assert set(winners) == {0, 1, 2}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_policies_normalised(name):
    rng = np.random.default_rng(11)
    bandit = reward_bandit(rng.integers(9, size=(3, 20)).astype(float), normalise(rng.standard_normal((3, 20))))
    log_pi = after(METHODS[name](), bandit, 50)
    np.testing.assert_allclose(np.exp(log_pi).sum(1), 1, rtol=0, atol=1e-12)
