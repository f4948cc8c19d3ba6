"""Scores and compared pairs to preferences, and win rates from them."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest

from components.algorithms import leave_one_out
from components.config.errors import JudgeError
from components.judges import preference_from_pairs, preference_from_scores, with_pair_rate
from components.reporting.cards import StepProgress


def test_the_higher_score_wins_and_equal_scores_tie():
    preference = preference_from_scores(np.array([[3.0, 1.0, 1.0], [-1.0, 0.0, 2.0]]))
    assert preference.tolist() == [
        [[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]],
        [[0.5, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 1.0, 0.5]],
    ]


def test_bradley_terry_preferences():
    # sigmoid(log 3) = 3 / (3 + 1); at temperature 2 the difference 2·log 3 counts as log 3
    scores = np.array([[2 * np.log(3.0), 0.0, 0.0]])
    expected = [[[0.5, 0.75, 0.75], [0.25, 0.5, 0.5], [0.25, 0.5, 0.5]]]
    np.testing.assert_allclose(preference_from_scores(scores, temperature=2.0), expected, atol=1e-15)
    # sigmoid(2·log 3) = 9 / (9 + 1)
    assert preference_from_scores(scores, temperature=1.0)[0, 0, 1] == pytest.approx(0.9, abs=1e-15)


def test_bradley_terry_preferences_of_far_scores_stay_finite():
    preference = preference_from_scores(np.array([[1e6, -1e6]]), temperature=1e-3)
    np.testing.assert_allclose(preference, [[[0.5, 1.0], [0.0, 0.5]]], atol=1e-300)


def test_scores_whose_difference_no_float_holds():
    scores = np.array([[1.5e308, -1.5e308]])
    for temperature in (None, 2.0):
        assert preference_from_scores(scores, temperature).tolist() == [[[0.5, 1.0], [0.0, 0.5]]]


def test_both_orders_of_a_pair_are_averaged():
    # y_0 wins with 0.9 when shown first and with 1 - 0.3 when shown second: 0.8
    pairs = np.array([[[np.nan, 0.9, 0.5], [0.3, 7.0, 1.0], [0.5, 0.0, -1.0]]])
    expected = [[[0.5, 0.8, 0.5], [0.2, 0.5, 1.0], [0.5, 0.0, 0.5]]]
    np.testing.assert_allclose(preference_from_pairs(pairs, ["p"]), expected, atol=1e-15)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_a_preference_outside_its_range_names_the_prompt(value):
    pairs = np.full((3, 2, 2), 0.5)
    pairs[1, 0, 1] = value
    with pytest.raises(JudgeError, match=r"prompt 'b': the judge gave a preference that is not in \[0, 1\]"):
        preference_from_pairs(pairs, ["a", "b", "c"])


def test_leave_one_out_by_hand():
    preference = np.array([[[0.5, 1.0, 0.5], [0.0, 0.5, 0.25], [0.5, 0.75, 0.5]]])
    # (1 + 0.5) / 2, (0 + 0.25) / 2, (0.5 + 0.75) / 2
    assert leave_one_out(preference).tolist() == [[0.75, 0.125, 0.625]]
    assert leave_one_out(np.array([[[0.5, 1.0], [0.0, 0.5]]])).tolist() == [[1.0, 0.0]]


def random_game(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A policy and a preference matrix with ties, certainties and a cycle among the first three responses."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.choice([0.0, 0.5, 1.0, rng.random()], size=(size, size)), 1)
    upper[0, 1], upper[1, 2], upper[0, 2] = 0.9, 0.8, 0.3
    preference = upper + np.tril(1 - upper.T, -1) + np.eye(size) / 2
    return rng.dirichlet(np.full(size, 2.0)), preference


@pytest.mark.parametrize("k", [2, 4])
def test_leave_one_out_is_unbiased(k):
    groups, size = 100_000, 6
    policy, preference = random_game(size, seed=0)
    np.testing.assert_allclose(preference + preference.T, 1)
    responses = np.random.default_rng(1).choice(size, size=(groups, k), p=policy)
    judged = preference[responses[:, :, None], responses[:, None, :]]
    win_rate = leave_one_out(judged)
    with_self = judged.mean(-1)
    np.testing.assert_allclose(win_rate.mean(-1), 0.5, atol=1e-12)
    biased = 0
    for y in range(size):
        drawn = responses[:, 0] == y  # one response of each group, so that the samples are independent
        exact = preference[y] @ policy
        limit = 4 * win_rate[drawn, 0].std(ddof=1) / np.sqrt(drawn.sum())
        assert abs(win_rate[drawn, 0].mean() - exact) < limit
        biased += abs(with_self[drawn, 0].mean() - exact) > limit
    assert biased > 0  # the same test finds the bias of counting the tie with itself


def test_the_rate_of_pairs_counts_each_pair_of_responses_once(monkeypatch):
    """Four prompts with three pairs each; a quarter done after two seconds is 1.5 pairs a second."""
    clock = iter([100.0, 102.0, 103.0])
    monkeypatch.setattr("components.judges.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    seen = []
    progress = with_pair_rate(lambda done, total, **figures: seen.append((done, total, figures)), n=4, k=3)
    progress(6, 24)
    progress(24, 24, loss=0.5)
    assert seen == [(6, 24, {"pairs_per_second": 1.5}), (24, 24, {"pairs_per_second": 4.0, "loss": 0.5})]


def test_the_rate_of_pairs_is_seen_in_the_log():
    log = io.StringIO()
    with StepProgress("judge responses", stream=log) as progress:
        with_pair_rate(progress, 4, 3)(24, 24)
    assert re.search(r"24/24 .*, pairs_per_second=[\d.e+]+\]$", log.getvalue())
