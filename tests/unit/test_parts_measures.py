"""Means of parts with their intervals by hand, their columns in `history`, and these as rows again."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from components.comparison import analysis, report
from components.comparison.charts import comparison_figure
from components.evaluation.metrics import HISTORY_COLUMNS, Evaluated, WinRate, history_row, measure
from components.evaluation.parts import Mean, mean_interval, tidy
from components.judges import Judgement, preference_from_scores

OURS, THEIRS = slice(0, 1), slice(1, 2)
# Four prompts, one response of the policy and one of the reference to each. The policy's score is higher on the first
# two prompts and lower on the others.
SCORE = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
LENGTH = np.array([[0.25, 1.0], [0.5, 3.0], [0.75, 2.0], [1.0, 2.0]])
GROUPS = {"a": np.array([0, 1, 2]), "b [x]": np.array([3])}
# t quantiles of 97.5 % from a printed table
T2, T3 = 4.302653, 3.182446


def row(iteration=1, *, parts=None, groups=GROUPS):
    judgement = Judgement(preference_from_scores(SCORE), SCORE, {"length": LENGTH} if parts is None else parts)
    evaluated = Evaluated(
        rollout={},
        against_reference=WinRate(0.5, 0.25, 0.75),
        against_previous=WinRate(0.5, 0.25, 0.75),
        kl=1.5,
        reward=0.25,
        response_length=12.5,
        truncated=0.125,
        measures=measure(judgement, groups, OURS, THEIRS),
    )
    return history_row(
        iteration=iteration,
        algorithm="wind",
        evaluated=evaluated,
        counts={"tokens_generated": 900, "responses": 64, "prompts": 16, "micro_batch_size": 4},
        seconds=dict.fromkeys(("generate", "score", "train", "evaluate"), 1.0),
    )


def test_mean_interval_by_hand():
    """Means of prompts 1/4, 1/2, 3/4 and 1: 5/8, with a standard error of sqrt(5/48/4) = 0.161374 and three degrees of
    freedom. The responses of a prompt count through their mean alone."""
    found = mean_interval(np.array([[0.0, 0.5], [0.5, 0.5], [1.0, 0.5], [3.0, -1.0]]))
    assert found.mean == 0.625
    assert found.low == pytest.approx(0.625 - T3 * 0.161374, abs=1e-5)
    assert found.high == pytest.approx(0.625 + T3 * 0.161374, abs=1e-5)


def test_a_share_has_an_interval_within_its_ends():
    """Of 0 or 1 alone. Fifteen prompts without one: `intervals.rate_interval`, whose coverage has a test of its own."""
    groups = {"all": np.arange(15)}
    parts = {"met": np.zeros((15, 2)), "length": np.full((15, 2), 0.5)}
    judgement = Judgement(preference_from_scores(np.zeros((15, 2))), np.zeros((15, 2)), parts)
    found = {one.name: one.policy for one in measure(judgement, groups, OURS, THEIRS) if one.group is None}
    assert (found["part_met"].mean, found["part_met"].low) == (0.0, 0.0)
    assert 0.2 < found["part_met"].high < 0.25
    assert (found["part_length"].low, found["part_length"].high) == (0.5, 0.5)


def test_of_one_prompt_the_interval_is_not_known():
    found = mean_interval(np.array([[1.0, 4.0]]))
    assert found.mean == 2.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_prompts_leave_no_doubt():
    assert mean_interval(np.full((5, 2), -3.5)) == Mean(-3.5, -3.5, -3.5)


def test_columns_of_parts_and_groups():
    history = row()
    added = list(history)[len(HISTORY_COLUMNS) :]
    bounds = ("", "_low", "_high", "_reference", "_reference_low", "_reference_high")
    assert added == [
        *(f"win_rate{bound}[{group}]" for group in GROUPS for bound in bounds[:3]),
        *(f"part_length{bound}" for bound in bounds),
        *(f"part_length{bound}[{group}]" for group in GROUPS for bound in bounds),
        *("held_out[a]", "held_out[b [x]]", "held_out"),
    ]
    values = history.iloc[0]
    # Of all: 5/8 as above, and the reference's 1, 3, 2, 2 with a standard deviation of sqrt(2/3).
    assert values["part_length"] == 0.625
    assert values["part_length_high"] == pytest.approx(0.625 + T3 * 0.161374, abs=1e-5)
    assert values["part_length_reference"] == 2.0
    assert values["part_length_reference_low"] == pytest.approx(2 - T3 * math.sqrt(2 / 3) / 2, abs=1e-5)
    # Of a: 1/4, 1/2, 3/4 with a standard deviation of 1/4, and 1, 3, 2 with one of 1.
    assert values["part_length[a]"] == 0.5
    assert values["part_length_low[a]"] == pytest.approx(0.5 - T2 * 0.25 / math.sqrt(3), abs=1e-5)
    assert values["part_length_reference[a]"] == 2.0
    assert values["part_length_reference_high[a]"] == pytest.approx(2 + T2 / math.sqrt(3), abs=1e-5)
    assert values["win_rate[a]"] == pytest.approx(2 / 3)
    # Of b [x], one prompt.
    assert (values["part_length[b [x]]"], values["part_length_reference[b [x]]"]) == (1.0, 2.0)
    assert values[["part_length_low[b [x]]", "part_length_high[b [x]]"]].isna().all()
    assert values["win_rate[b [x]]"] == 0.0
    assert values[["held_out", "held_out[a]", "held_out[b [x]]"]].tolist() == [4, 3, 1]


def test_without_parts_and_groups_history_is_as_before():
    assert list(row(parts={}, groups={})) == list(HISTORY_COLUMNS)


def test_columns_are_rows_again():
    found = tidy(pd.concat([row(1), row(2)], ignore_index=True))
    assert list(found) == ["name", "group", "prompts", "iteration", "mean", "low", "high"]
    shown = found[["name", "group", "prompts", "iteration", "mean"]].to_numpy().tolist()
    assert shown == [
        ["win rate", "", 4.0, 1, 0.5],
        ["win rate", "", 4.0, 2, 0.5],
        ["win rate", "a", 3.0, 1, pytest.approx(2 / 3)],
        ["win rate", "a", 3.0, 2, pytest.approx(2 / 3)],
        ["win rate", "b [x]", 1.0, 1, 0.0],
        ["win rate", "b [x]", 1.0, 2, 0.0],
        *(["length", "", 4.0, t, mean] for t, mean in [(0, 2.0), (1, 0.625), (2, 0.625)]),
        *(["length", "a", 3.0, t, mean] for t, mean in [(0, 2.0), (1, 0.5), (2, 0.5)]),
        *(["length", "b [x]", 1.0, t, mean] for t, mean in [(0, 2.0), (1, 1.0), (2, 1.0)]),
    ]
    length = found[(found["name"] == "length") & (found["group"] == "")]
    assert length["low"].tolist()[1:] == pytest.approx([0.625 - T3 * 0.161374] * 2, abs=1e-5)


def test_rows_between_evaluations_are_left_out():
    between = row(2, parts={}, groups={}).drop(columns="held_out", errors="ignore").assign(win_rate=np.nan)
    found = tidy(pd.concat([row(1), between, row(3)], ignore_index=True))
    assert set(found["iteration"]) == {0, 1, 3}
    assert found["mean"].notna().all()


def test_names_that_look_like_those_of_bounds():
    parts = {"low": LENGTH, "reference": 2 * LENGTH, "win_rate": 3 * LENGTH}
    found = tidy(row(parts=parts, groups={}))
    means = {(name, t): mean for name, t, mean in found[["name", "iteration", "mean"]].to_numpy().tolist()}
    assert means == {
        ("win rate", 1): 0.5,
        **{("low", 0): 2.0, ("low", 1): 0.625},
        **{("reference", 0): 4.0, ("reference", 1): 1.25},
        **{("win_rate", 0): 6.0, ("win_rate", 1): 1.875},
    }


def test_a_history_that_began_without_parts_goes_on_with_them(tmp_path):
    """And through the file in which a run's note keeps it."""
    pd.concat([row(1, parts={}, groups={}), row(2)], ignore_index=True).to_parquet(tmp_path / "history.parquet")
    history = pd.read_parquet(tmp_path / "history.parquet")
    found = tidy(history)
    length = found[(found["name"] == "length") & (found["group"] == "a")]
    assert length["iteration"].tolist() == [0, 1, 2]
    assert np.isnan(length["mean"].iloc[1])
    assert length["mean"].tolist()[::2] == [2.0, 0.5]


def test_what_the_last_iteration_did_not_measure_is_left_out():
    history = pd.concat([row(1), row(2, groups={"new": np.arange(4)})], ignore_index=True)
    assert tidy(history).drop_duplicates(["name", "group"])[["name", "group"]].to_numpy().tolist() == [
        ["win rate", ""],
        ["win rate", "new"],
        ["length", ""],
        ["length", "new"],
    ]
    assert set(tidy(pd.concat([row(1), row(2, parts={}, groups={})], ignore_index=True))["name"]) == {"win rate"}


def test_a_comparison_takes_histories_with_parts(tmp_path):
    with_parts = pd.concat([row(1), row(2)], ignore_index=True)
    results = analysis.tidy([("one", 0, with_parts), ("two", 0, row(1, parts={}, groups={}))])
    assert results["part_length[a]"].tolist()[:2] == [0.5, 0.5]
    assert np.isnan(results["part_length[a]"].iloc[2])
    reach = analysis.to_reach(results, analysis.levels(results))
    report.write(results, reach, tmp_path, title="Both")
    again = pd.read_csv(tmp_path / "comparison.csv")
    assert again["part_length_low[a]"].iloc[0] == pytest.approx(0.5 - T2 * 0.25 / math.sqrt(3), abs=1e-5)
    assert len(comparison_figure(results).axes) == 3
