"""One sampled iteration: its parts are unbiased, its limit is the exact update, its error falls as M^(-1/2)."""

from __future__ import annotations

import numpy as np
import pytest

from components.bandit.config import SamplingConfig
from components.bandit.games import Bandit, PreferenceMatrix
from components.bandit.laboratory import sample_complexity
from components.bandit.methods import Wind
from components.bandit.sampling import draw, error, fitted_slope, judge, random_log_linear, sampled_iteration


def log_linear(seed=0, **changed):
    settings = {"prompts": 5, "responses": 12, "features": 3, "beta": 0.2, "eta": 2.0}
    return random_log_linear(np.random.default_rng(seed), **settings | changed)


def preference_of(bandit):
    score = bandit.features @ bandit.weights
    return 0.5 + score[:, :, None] - score[:, None, :]


def test_the_exact_update_of_the_parameters_is_that_of_the_tabular_policy():
    bandit = log_linear()
    tabular = Bandit(PreferenceMatrix(preference_of(bandit)), bandit.log_policy(bandit.theta_ref), bandit.beta)
    expected = Wind(eta=bandit.eta).step(tabular, bandit.log_policy(bandit.theta_old))
    got = bandit.log_policy(bandit.update(bandit.weights))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert error(bandit, bandit.update(bandit.weights)) == 0
    assert error(bandit, bandit.theta_old) > 1e-3


def test_preferences_are_probabilities_that_use_their_range():
    preference = preference_of(log_linear())
    assert preference.min() >= 0
    assert preference.max() <= 1
    assert np.ptp(preference) > 0.5


def test_responses_are_drawn_from_the_policy_of_their_prompt():
    """Counts of 1e5 draws within 5 standard errors, for a policy with an impossible response."""
    pi = np.array([[0.7, 0.0, 0.3], [0.1, 0.2, 0.7]])
    prompts = np.repeat([1, 0], 25_000)
    drawn = draw(pi, prompts, 4, np.random.default_rng(0))
    for prompt in (0, 1):
        share = np.bincount(drawn[prompts == prompt].ravel(), minlength=3) / 1e5
        assert (np.abs(share - pi[prompt]) <= 5 * np.sqrt(pi[prompt] * (1 - pi[prompt]) / 1e5)).all()


def test_judgements_are_wins_and_losses_with_the_preferences_frequency():
    bandit = log_linear()
    prompts, drawn = np.full(100_000, 2), np.tile([3, 0, 7], (100_000, 1))
    wins = judge(bandit, prompts, drawn, np.random.default_rng(0))
    assert (wins + wins.swapaxes(1, 2) == 1).all()
    assert set(np.unique(wins)) == {0, 0.5, 1}
    expected = preference_of(bandit)[2][np.ix_([3, 0, 7], [3, 0, 7])]
    np.testing.assert_allclose(wins.mean(0), expected, rtol=0, atol=5 * 0.5 / np.sqrt(1e5))


def test_the_error_of_a_sampled_iteration_falls_as_the_root_of_the_samples():
    """Slope -1/2 over two decades; with 80 repetitions a slope's standard error is about 0.015."""
    config = SamplingConfig(samples=[256, 808, 2560, 8096, 25_600], repeats=40)
    curves = [sample_complexity(config, seed).groupby("samples")["error"].mean() for seed in (0, 1)]
    mean = sum(curves) / 2
    assert -0.6 <= fitted_slope(mean.index, mean) <= -0.4
    for curve in curves:
        assert -0.6 <= fitted_slope(curve.index, curve) <= -0.4


@pytest.mark.thorough
def test_with_many_samples_the_estimate_is_the_exact_update():
    """With a million samples the estimate is within 1 % of the update's length for groups of 2 as of 8.

    A win rate that counts the tie of a response with itself would halve the step of groups of 2.
    """
    bandit = log_linear()
    exact = bandit.update(bandit.weights)
    for group in (2, 8):
        theta = sampled_iteration(bandit, 1_000_000, group, np.random.default_rng(1))
        assert np.abs(theta - exact).max() < 0.01 * np.abs(exact - bandit.update(0 * bandit.weights)).max()


@pytest.mark.parametrize(("samples", "group"), [(10, 4), (2, 4), (8, 1)])
def test_samples_that_do_not_fill_groups_are_refused(samples, group):
    with pytest.raises(ValueError, match="must be a multiple of the group"):
        sampled_iteration(log_linear(), samples, group, np.random.default_rng(0))


def test_fitted_slope_by_hand():
    """Errors 8, 4, 2 at 1, 4, 16: a slope of log(1/2) / log(4) = -1/2; a common factor changes nothing."""
    assert fitted_slope([1, 4, 16], [8, 4, 2]) == pytest.approx(-0.5, abs=1e-15)
    assert fitted_slope([1, 4, 16], [800, 400, 200]) == pytest.approx(-0.5, abs=1e-15)


def test_a_curve_depends_on_its_seed_only():
    config = SamplingConfig(samples=[64, 128], repeats=2)
    one = sample_complexity(config, 3)
    assert one.equals(sample_complexity(config, 3))
    assert not one["error"].equals(sample_complexity(config, 4)["error"])
    assert list(one.columns) == ["seed", "samples", "repeat", "error"]
    assert one["error"].nunique() == len(one) == 4
