"""Small games of the exact laboratory, and Newton's method for their equilibrium."""

from __future__ import annotations

import numpy as np

from components.bandit.games import Bandit, PreferenceMatrix, RewardOrder
from components.bandit.policies import normalise


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


def assert_same_up_to_a_constant(values, tolerance):
    """Of each prompt."""
    assert np.ptp(values, axis=-1).max() < tolerance


TWO = Bandit(PreferenceMatrix(np.array([[[0.5, 1.0], [0.0, 0.5]]])), np.log([[0.5, 0.5]]), 0.5)
