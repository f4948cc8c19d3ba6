"""Equilibria at small beta: against hand-made ones, and against their condition in extended precision."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from components.bandit import solver
from components.bandit.config import LabConfig, parse
from components.bandit.games import Bandit, PreferenceMatrix, RewardOrder
from components.bandit.laboratory import Cell, play
from components.bandit.policies import normalise
from components.bandit.settings import SETTINGS
from components.bandit.solver import SMALLEST_BETA, equilibrium
from components.config.errors import ConfigError

ROCK_PAPER_SCISSORS = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
LABORATORY = Path(__file__).parents[2] / "flows" / "configs" / "bandit" / "laboratory.yaml"
BETAS = [0.02, 0.0199, 0.01, 0.0075, 0.005, 1e-3, 1e-4, 1e-5, 1e-6]
EPS = np.finfo(np.float64).eps


def preference_of(bandit):
    """(n, Y, Y) in extended precision; of a reward order by comparing every pair."""
    if isinstance(bandit.game, PreferenceMatrix):
        return bandit.game.preference.astype(np.longdouble)
    margin = bandit.rewards[:, :, None] - bandit.rewards[:, None, :]
    return ((margin > 0) + 0.5 * (margin == 0)).astype(np.longdouble)


def miss(bandit, log_pi):
    """Largest distance of a prompt's log pi - log pi_ref - P(y > pi)/beta from a constant, in extended precision."""
    log_pi = log_pi.astype(np.longdouble)
    pi = np.exp(log_pi)
    pi /= pi.sum(1, keepdims=True)
    excess = log_pi - bandit.log_ref - np.einsum("nij,nj->ni", preference_of(bandit), pi) / np.longdouble(bandit.beta)
    return float(np.ptp(excess, axis=1).max())


def allowed(bandit, log_pi):
    """What rounding of log-probs and, divided by beta, of win rates allows; in many extragradient steps it adds up."""
    size = float(np.abs(log_pi).max())
    steps = (1 + 2 * bandit.beta) / bandit.beta if bandit.beta >= solver.EXTRAGRADIENT_BETA else 1
    return 2e-12 + 16 * EPS * (size * steps + 1 / bandit.beta)


@pytest.mark.thorough(but=["0.0075", "0.02"])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    "setting",
    [
        SETTINGS["reward"](),
        SETTINGS["reward"](levels=8),
        SETTINGS["cyclic"](responses=12),
        SETTINGS["noise"](responses=40),
        SETTINGS["bradley_terry"](responses=40),
        SETTINGS["matrix"](preference=ROCK_PAPER_SCISSORS.tolist(), reference=[0.6, 0.3, 0.1]),
        SETTINGS["matrix"](preference=ROCK_PAPER_SCISSORS.tolist(), reference=[1, 1e-300, 1e-200]),
    ],
    ids=["reward", "ties", "cyclic", "noise", "bradley_terry", "skewed", "very skewed"],
)
def test_the_condition_of_the_equilibrium_holds_at_every_beta(setting, beta):
    """It has one solution: the game is strictly monotone."""
    bandit = setting.model_copy(update={"beta": beta, "prompts": 5}).bandit(np.random.default_rng(0))
    log_star = equilibrium(bandit)
    np.testing.assert_allclose(np.exp(log_star).sum(1), 1, rtol=0, atol=1e-12)
    assert miss(bandit, log_star) <= allowed(bandit, log_star)


@pytest.mark.parametrize("beta", [100.0, 1.0, 0.1, 0.02, 0.01])
def test_a_reference_of_huge_log_probs_is_solved(beta):
    """Its log-probs go down to -5,000, so their rounding alone exceeds 1e-12."""
    bandit = SETTINGS["noise"](prompts=3, responses=60, reference_spread=1000, beta=beta).bandit(
        np.random.default_rng(0)
    )
    log_star = equilibrium(bandit)
    assert miss(bandit, log_star) <= allowed(bandit, log_star)


@pytest.mark.parametrize("beta", BETAS)
def test_two_responses_by_hand(beta):
    """Against any policy the first wins by 1/2 more: a log-ratio of log(0.2/0.8) + 1/(2·beta)."""
    log_ref = np.log([[0.2, 0.8]])
    for game in (PreferenceMatrix(np.array([[[0.5, 1.0], [0.0, 0.5]]])), RewardOrder(np.array([[1.0, 0.0]]))):
        log_star = equilibrium(Bandit(game, log_ref, beta))
        assert log_star[0, 0] - log_star[0, 1] == pytest.approx(math.log(0.25) + 1 / (2 * beta), rel=1e-12)


@pytest.mark.parametrize("beta", [1e-4, 1e-5, 1e-6])
def test_rock_paper_scissors_to_first_order_in_beta(beta):
    """pi* = 1/3 + beta·d with P·d = g, g = mean(log pi_ref) - log pi_ref, for log pi* - log pi_ref - P·pi*/beta is a
    constant.

    Rows of P·d, as d sums to 0: (d3 - d2)/2, (d1 - d3)/2, (d2 - d1)/2. So d1 = 2/3·(g2 - g3), and round in a circle.
    """
    log_ref = np.log([0.6, 0.3, 0.1])
    g = log_ref.mean() - log_ref
    d = 2 / 3 * np.array([g[1] - g[2], g[2] - g[0], g[0] - g[1]])
    star = np.exp(equilibrium(Bandit(PreferenceMatrix(ROCK_PAPER_SCISSORS[None]), log_ref[None], beta)))[0]
    assert np.abs(star - 1 / 3).max() > 0.1 * beta
    np.testing.assert_allclose(star, 1 / 3 + beta * d, rtol=0, atol=20 * beta**2)


def test_newtons_method_and_extragradient_agree(monkeypatch):
    """At beta = 0.02, where both find it."""
    bandit = SETTINGS["noise"](prompts=3, responses=40, beta=0.02).bandit(np.random.default_rng(1))
    expected = equilibrium(bandit)
    monkeypatch.setattr(solver, "EXTRAGRADIENT_BETA", 0.1)
    np.testing.assert_allclose(equilibrium(bandit), expected, rtol=0, atol=1e-11)


def test_a_long_reward_order_is_solved_by_its_support():
    """A dense system of 10,000 responses would take 800 MB."""
    bandit = SETTINGS["reward"](prompts=1, responses=10_000, beta=0.005).bandit(np.random.default_rng(0))
    log_star = equilibrium(bandit)
    pi = np.exp(log_star[0].astype(np.longdouble))[np.argsort(bandit.rewards[0])]
    rate = (np.cumsum(pi) - pi / 2)[np.argsort(np.argsort(bandit.rewards[0]))]
    excess = log_star[0] - bandit.log_ref[0] - rate / bandit.beta
    assert np.ptp(excess) <= 1e-10


@pytest.mark.thorough
@pytest.mark.parametrize("beta", [1e-4, 0.0075])
def test_the_laboratory_plays_its_own_settings_at_a_small_beta(beta):
    values = parse(LABORATORY.read_text("utf-8"))
    lab = LabConfig.model_validate(
        {
            **values,
            "iterations": 3,
            "settings": {label: {**setting, "beta": beta} for label, setting in values["settings"].items()},
        }
    )
    for where in lab.settings:
        rows = play(lab, Cell(where, "wind", 0))
        for name in ("gap", "kl_equilibrium", "kl_target", "win_rate"):
            assert np.isfinite(rows[name]).all()
        assert (rows["kl_equilibrium"].diff()[1:] < 0).all() or where == "cyclic"


def test_where_newtons_method_gets_stuck_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(solver, "MAX_NEWTON_STEPS", 0)
    bandit = SETTINGS["cyclic"](prompts=1, responses=5, beta=1e-3).bandit(np.random.default_rng(0))
    with pytest.raises(
        ConfigError, match=r"^beta: no equilibrium found for 0.001, the smallest solved is 0.02. Raise beta"
    ):
        equilibrium(bandit)


@pytest.mark.parametrize("beta", [0, SMALLEST_BETA / 2])
def test_a_beta_below_the_smallest_is_refused(beta):
    with pytest.raises(ConfigError, match=r"settings.reward.beta: .* should be greater than or equal to 0.000001"):
        parse(f"settings: {{reward: {{beta: {beta}}}}}")


def test_win_rates_against_some_are_columns_of_the_preferences():
    rewards = np.array([[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 5.0, 1.0]])
    bandit = Bandit(RewardOrder(rewards), normalise(np.zeros((2, 4))), 0.1, rewards)
    expected = [[1, 0.5], [0, 0], [0.5, 0], [0.5, 0]]
    assert bandit.game.against(0, np.array([2, 0])).tolist() == expected
    matrix = PreferenceMatrix(preference_of(bandit).astype(np.float64))
    assert matrix.against(0, np.array([2, 0])).tolist() == expected
    assert bandit.game.against(1, np.array([1])).tolist() == [[0.5], [0.5], [1.0], [1.0]]
