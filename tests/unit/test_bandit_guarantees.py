"""Where what is promised of WIND and of BOND's mixing ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_bandit_methods import ROCK_PAPER_SCISSORS, after, newton, reward_bandit

from components.bandit.games import Bandit, PreferenceMatrix
from components.bandit.methods import Bond, Wind
from components.bandit.policies import kl


@pytest.mark.parametrize(("N", "alpha"), [(2, 0.4), (2, 0.5), (4, 0.5), (4, 0.75), (10, 0.9)])
def test_mixing_does_not_hold_the_worst_response_where_n_times_the_rest_is_one_or_more(N, alpha):
    """In one step log pi(worst) becomes N·(1 - alpha)·log pi(worst) + alpha·log pi_ref(worst) - log Z.

    Above 1 it grows geometrically. At 1 it still falls, by ever less.
    """
    bandit = reward_bandit(np.arange(5.0)[None], np.log([[0.2, 0.2, 0.2, 0.2, 0.2]]))
    early = after(Bond(N=N, alpha=alpha), bandit, 400)
    late = after(Bond(N=N, alpha=alpha), bandit, 1600, early)
    assert late[0, 0] < early[0, 0] - 5 or early[0, 0] < -1e8
    assert f"Raise alpha above {1 - 1 / N:.3g}, or lower N." in Bond(N=N, alpha=alpha).caution()


@pytest.mark.parametrize(("N", "alpha"), [(2, 0.55), (4, 0.78), (10, 0.92)])
def test_mixing_holds_the_worst_response_below_one(N, alpha):
    """At the fixed point of that step, with log Z <= 0: log pi(worst) >= alpha·log pi_ref / (1 - N·(1 - alpha))."""
    log_ref = np.log([[0.2, 0.2, 0.2, 0.2, 0.2]])
    bandit = reward_bandit(np.arange(5.0)[None], log_ref)
    log_pi = after(Bond(N=N, alpha=alpha), bandit, 4000)
    assert log_pi[0, 0] >= alpha * math.log(0.2) / (1 - N * (1 - alpha))
    assert Bond(N=N, alpha=alpha).caution() is None
    assert Bond(N=N).caution() is None


def test_the_linear_rate_may_be_missed_beyond_eta_of_beta():
    """Rock, paper, scissors at beta = 0.32: at eta = beta one step holds the rate, at 10·beta it does not."""
    log_ref, log_pi, beta = np.log([[0.41, 0.03, 0.56]]), np.log([[0.05, 0.69, 0.26]]), 0.32
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), log_ref, beta)
    log_star = np.log(newton(ROCK_PAPER_SCISSORS[0], log_ref[0], beta))[None]
    missed = []
    for eta in (beta, 10 * beta):
        left = kl(log_star, Wind(eta=eta).step(bandit, log_pi))[0] / kl(log_star, log_pi)[0]
        missed.append(left * (1 + beta * eta))
    assert missed[0] <= 1
    assert missed[1] > 1.02


def test_far_beyond_the_guarantee_a_cyclic_game_is_left_for_good():
    """eta = 500·beta, as the defaults of the language model's `wind`: the policy moves away from pi* and stays away."""
    log_ref, beta = np.log([[0.6, 0.3, 0.1]]), 0.02
    bandit = Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS), log_ref, beta)
    log_star = np.log(newton(ROCK_PAPER_SCISSORS[0], log_ref[0], beta))[None]
    far, near = (after(Wind(eta=eta), bandit, 2000) for eta in (500 * beta, beta))
    assert kl(log_star, far)[0] > 5 * kl(log_star, log_ref)[0]
    assert kl(log_star, near)[0] < kl(log_star, log_ref)[0] * (1 + beta**2) ** -2000
