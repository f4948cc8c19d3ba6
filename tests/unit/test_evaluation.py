"""Win rates and their intervals, KL, and the row of `history`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.config.sections import EvaluationConfig
from components.evaluation.metrics import Evaluated, WinRate, due, history_row, kl, skipped, win_rate


def against(values):
    """(n, 2, 2): the preference of one response over one rival's, per prompt."""
    values = np.array(values)
    tie = np.full_like(values, 0.5)
    return np.stack([np.stack([tie, values], 1), np.stack([1 - values, tie], 1)], 1)


def test_interval_by_hand():
    """Of 0.25, 0.5, 0.75, 1 and two pseudo-prompts, 0 and 1: 7/12 ± t(5)/6 and 1/12 more, t(5) = 2.570582.

    That the upper end is cut at 1 is no error of it. See test_intervals.py for the arithmetic.
    """
    result = win_rate(against([0.25, 0.5, 0.75, 1.0]), slice(0, 1), slice(1, 2))
    assert result.mean == 0.625
    assert result.low == pytest.approx(7 / 12 - 2.570582 / 6 - 1 / 12, abs=1e-6)
    assert result.high == 1.0


@pytest.mark.parametrize(("value", "low", "high"), [(0.5, 0.281389, 0.718611), (1.0, 0.623784, 1.0)])
def test_eight_prompts_that_agree_are_not_certain(value, low, high):
    """0.5 ± 2.262157·√(1/180) and 0.9 - 2.262157·√0.01, each 1/20 wider; t(9) = 2.262157."""
    result = win_rate(against([value] * 8), slice(0, 1), slice(1, 2))
    assert (result.mean, result.low, result.high) == pytest.approx((value, low, high), abs=1e-6)


def test_one_prompt_says_nothing_of_others():
    assert win_rate(against([0.9]), slice(0, 1), slice(1, 2)) == WinRate(0.9, 0.0, 1.0)


def test_rivals_are_blocks_of_the_matrix():
    """Two responses each of three policies, scores (5, 1), (3, 1), (0, 9): 5 beats both of (3, 1), 1 loses and ties:
    (1 + 1 + 0 + 1/2)/4 = 5/8. 5 and 1 beat 0 and lose to 9: 1/2. (3, 1) against (0, 9): 1/2."""
    scores = np.array([[5, 1, 3, 1, 0, 9]])
    preference = (np.sign(scores[:, :, None] - scores[:, None, :]) + 1) / 2
    ours, theirs, previous = slice(0, 2), slice(2, 4), slice(4, 6)
    assert win_rate(preference, ours, theirs).mean == 0.625
    assert win_rate(preference, theirs, ours).mean == 0.375
    assert win_rate(preference, ours, previous).mean == 0.5
    assert win_rate(preference, theirs, previous).mean == 0.5


def test_interval_covers_the_true_win_rate():
    """Two responses each to 100 prompts; scores N(0.6 + a, 1) against N(0, 1), with an advantage a ~ N(0, 1) that a
    prompt's responses share. P(ours > theirs) = Phi(0.6 / sqrt(3)), and 95 % of the intervals hold it.

    An interval that took the four pairs of a prompt for independent would hold it in about 80 %.
    """
    truth = (1 + math.erf(0.6 / math.sqrt(3) / math.sqrt(2))) / 2
    rng = np.random.default_rng(0)
    trials = 2000
    hits = 0
    for _ in range(trials):
        scores = rng.normal(size=(100, 4))
        scores[:, :2] += 0.6 + rng.normal(size=(100, 1))
        interval = win_rate((np.sign(scores[:, :, None] - scores[:, None, :]) + 1) / 2, slice(0, 2), slice(2, 4))
        hits += interval.low <= truth <= interval.high
    assert hits / trials == pytest.approx(0.95, abs=0.02)


def test_kl_by_hand():
    """Differences 0.5, 1, -0.5 and 3; their mean is 1."""
    assert kl(np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([[-1.5, -3.0], [-2.5, -7.0]])) == 1.0


@pytest.mark.parametrize(
    ("every", "since", "iterations", "expected"),
    [
        (1, 0, 3, [1, 2, 3]),
        (2, 0, 5, [2, 4, 5]),
        (3, 0, 6, [3, 6]),
        (9, 0, 2, [2]),
        (2, 3, 3, [5, 6]),  # continues from the third iteration
    ],
)
def test_which_iterations_are_evaluated(every, since, iterations, expected):
    settings = EvaluationConfig(every=every)
    passed = range(since + 1, since + iterations + 1)
    assert [t for t in passed if due(settings, t, since=since, iterations=iterations)] == expected


def test_an_iteration_that_is_not_evaluated_keeps_its_place_and_what_training_told():
    row = history_row(
        iteration=1,
        algorithm="wind",
        evaluated=skipped({"rollout.parquet": "before"}),
        counts={"prompts": 16, "responses": 64, "tokens_generated": 900, "micro_batch_size": 4},
        seconds={"generate": 1.0, "score": 2.0, "train": 3.0, "evaluate": 0.0},
        training={"risk_before": 0.5},
    )
    assert skipped({"rollout.parquet": "before"}).rollout == {"rollout.parquet": "before"}
    unknown = ["win_rate", "win_rate_low", "win_rate_high", "win_rate_previous", "kl", "reward_mean"]
    unknown += ["response_length", "truncated", "kl_token"]
    assert row[unknown].isna().all(axis=None)
    assert row[["responses", "seconds_train", "risk_before"]].to_numpy().tolist() == [[64, 3.0, 0.5]]


def test_history_row():
    evaluated = Evaluated(
        rollout={},
        against_reference=WinRate(0.7, 0.6, 0.8),
        against_previous=WinRate(0.55, 0.5, 0.6),
        kl=1.5,
        reward=0.25,
        response_length=12.5,
        truncated=0.125,
    )
    arguments = {
        "iteration": 2,
        "algorithm": "wind",
        "evaluated": evaluated,
        "counts": {"tokens_generated": 900, "responses": 64, "prompts": 16, "micro_batch_size": 4},
        "seconds": {"start": 9.0, "generate": 1.0, "score": 2.0, "train": 3.0, "evaluate": 4.0},
    }
    row = history_row(**arguments)
    # Names and order are the contract with whoever reads `Run(...).data.history`.
    assert list(row) == [
        *("iteration", "algorithm", "win_rate", "win_rate_low", "win_rate_high", "win_rate_previous", "kl"),
        *("reward_mean", "response_length", "prompts", "responses", "truncated", "tokens_generated"),
        *("seconds_generate", "seconds_score", "seconds_train", "seconds_evaluate", "micro_batch_size"),
        *("kl_token", "risk_before", "risk_after", "winners_moved", "winners_target", "losers_moved", "losers_target"),
        *("kl_step", "kl_step_token", "tied", "win_rate_lc", "win_rate_lc_low", "win_rate_lc_high"),
        *("response_length_reference", "truncated_reference"),
        *("distinct_1", "distinct_1_reference", "distinct_2", "distinct_2_reference"),
        *("distinct_3", "distinct_3_reference", "distinct_1_across", "distinct_1_across_reference"),
        *("distinct_2_across", "distinct_2_across_reference", "distinct_3_across", "distinct_3_across_reference"),
        *("repetition", "repetition_reference", "similarity", "similarity_reference", "text_warnings", "warnings"),
    ]
    assert row.iloc[:, :18].to_numpy().tolist() == [
        [2, "wind", 0.7, 0.6, 0.8, 0.55, 1.5, 0.25, 12.5, 16, 64, 0.125, 900, 1.0, 2.0, 3.0, 4.0, 4]
    ]
    # 1.5 nats over 12.5 tokens; the rest is for algorithms that train on responses drawn before.
    assert row["kl_token"].tolist() == [0.12]
    assert row.loc[:, "risk_before":"kl_step_token"].isna().all(axis=None)
    assert row["warnings"].tolist() == [""]
    # What nobody measured of the text is not known.
    assert row.loc[:, "win_rate_lc":"similarity_reference"].isna().all(axis=None)
    assert row["text_warnings"].tolist() == [""]
    compared = history_row(**arguments | {"counts": arguments["counts"] | {"logp_difference": 0.01}})
    assert list(compared) == [*row, "logp_difference"]
    assert compared["logp_difference"].tolist() == [0.01]


def test_history_row_of_training_in_passes():
    """What `Trained.figures` holds beside: the means over optimiser steps are not for the history."""
    learned = {"risk_before": 0.3, "risk_1": 0.2, "risk_2": 0.1, "risk_after": 0.1, "winners_moved": 1.0}
    learned |= {"winners_target": 2.0, "losers_moved": -1.5, "losers_target": -2.5, "kl_step": 0.5}
    row = history_row(
        iteration=1,
        algorithm="wind",
        evaluated=Evaluated({}, WinRate(0.7, 0.6, 0.8), WinRate(0.7, 0.6, 0.8), 1.5, 0.25, 12.5, 0.0),
        counts={"prompts": 16, "responses": 64, "tokens_generated": 900, "micro_batch_size": 4, "logp_difference": 0.1},
        seconds={"generate": 1.0, "score": 2.0, "train": 3.0, "evaluate": 4.0},
        training={"loss": 0.2, "grad_norm": 3.0, **learned, "kl_step_token": 0.05},
        warnings="It rose.",
    )
    assert list(row)[-4:] == ["warnings", "logp_difference", "risk_1", "risk_2"]
    assert "loss" not in row
    assert row[list(learned)].iloc[0].to_dict() == learned
    assert row[["kl_step_token", "warnings"]].to_numpy().tolist() == [[0.05, "It rose."]]
