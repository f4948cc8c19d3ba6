"""Random opponents: which pairs are compared, and that the win rate from them is unbiased."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np
import pytest
from pydantic import Field

from components.algorithms import leave_one_out
from components.config.errors import ConfigError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judges._pairwise import FirstWins, PairwiseJudge, completed, neighbours
from components.runtime.progress import silent

PROMPTS = [Prompt(name, ({"role": "user", "content": name},)) for name in ("one", "two", "three")]


class Longer(PairwiseJudge):
    """Prefers the longer response with 0.8, and the one shown first by 0.1 more; counts what it is asked."""

    name: Literal["longer"] = "longer"
    asked: list[tuple[int, int, int]] = Field(default_factory=list)

    def check(self):
        pass

    def compare_pairs(self, prompts, responses, pairs, progress=silent):
        self.asked.extend(pairs)
        lengths = [(len(responses[i][a]), len(responses[i][b])) for i, a, b in pairs]
        wins = [0.5 if a == b else 0.8 if a > b else 0.2 for a, b in lengths]
        progress(len(pairs), len(pairs))
        return FirstWins(np.array(wins) + 0.1)


def answers(k, *, policies=1, truncated=()):
    cut = np.zeros((len(PROMPTS), k), dtype=bool)
    for place in truncated:
        cut[place] = True
    return Answers([["x" * (j + 1) for j in range(k)] for _ in PROMPTS], cut, [""] * len(PROMPTS), policies)


@pytest.mark.parametrize(("k", "m"), [(k, m) for k in range(3, 10) for m in range(1, k - 1)])
def test_each_response_meets_as_many_others(k, m):
    chosen = neighbours(np.random.default_rng(k).permutation(k), m)
    assert (chosen == chosen.T).all()
    assert not chosen.diagonal().any()
    expected = [m] * k if k * m % 2 == 0 else [*[m] * (k - 1), m + 1]
    assert sorted(chosen.sum(1).tolist()) == expected


@pytest.mark.parametrize(("k", "m"), [(4, 1), (4, 2), (5, 1), (5, 2), (5, 3), (6, 2), (6, 3)])
def test_over_all_orders_the_mean_win_rate_is_that_of_all_pairs(k, m):
    """Every response, exactly: also where K·m is odd and one response has one more opponent."""
    upper = np.triu(np.random.default_rng(1).random((k, k)), 1)
    preference = upper + np.tril(1 - upper.T, -1) + np.eye(k) / 2
    everyone = [sum(preference[i, j] for j in range(k) if j != i) / (k - 1) for i in range(k)]
    estimates = []
    for order in permutations(range(k)):
        chosen = neighbours(np.array(order), m)
        estimates.append(leave_one_out(completed(preference[None], chosen[None]))[0])
        for i in range(k):
            met = [preference[i, j] for j in range(k) if chosen[i, j]]
            assert estimates[-1][i] == pytest.approx(sum(met) / len(met), abs=1e-12)
    np.testing.assert_allclose(np.mean(estimates, 0), everyone, atol=1e-12)


def test_what_was_not_compared_is_filled_by_hand():
    # 0 beats 1 and 2 beats 3; nobody else met
    preference = np.array([[0.5, 0.9, 0.5, 0.5], [0.1, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 0.0, 0.5]])
    filled = completed(preference[None], neighbours(np.array([0, 2, 1, 3]), 1)[None])[0]
    expected = [[0.5, 0.9, 0.9, 0.9], [0.1, 0.5, 0.1, 0.1], [1.0, 1.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.5]]
    np.testing.assert_allclose(filled, expected, atol=1e-12)
    np.testing.assert_allclose(leave_one_out(filled[None]), [[0.9, 0.1, 1.0, 0.0]], atol=1e-12)


def test_both_orders_of_the_drawn_pairs_are_asked_and_no_others():
    judge = Longer(opponents=2)
    judgement = judge.verdict(PROMPTS, answers(6))
    assert len(judge.asked) == len(set(judge.asked)) == judge.model_inputs(3, 6) == 3 * 6 * 2
    met = {i: {(a, b) for row, a, b in judge.asked if row == i} for i in range(3)}
    for i, pairs in met.items():
        assert {(b, a) for a, b in pairs} == pairs
        for a in range(6):  # both orders averaged: 0.8 or 0.2, without what the first shown has more
            rivals = [b for first, b in pairs if first == a]
            assert len(rivals) == 2
            expected = sum(0.8 if a > b else 0.2 for b in rivals) / 2
            assert leave_one_out(judgement.preference)[i, a] == pytest.approx(expected, abs=1e-12)
    assert met[0] != met[1]  # drawn anew for each prompt


def test_a_shard_of_its_own_draws_the_same():
    whole, alone = Longer(opponents=3), Longer(opponents=3)
    together = whole.verdict(PROMPTS, answers(7)).preference[1]
    given = answers(7)
    one = Answers(given.texts[1:2], given.truncated[1:2], given.prompt_ends[1:2])
    np.testing.assert_array_equal(alone.verdict(PROMPTS[1:2], one).preference[0], together)
    assert len(alone.asked) == alone.model_inputs(1, 7) == 2 * 11  # ceil(7 · 3 / 2) pairs


@pytest.mark.parametrize("settings", [{}, {"opponents": 5}, {"opponents": 50}])
def test_as_many_opponents_as_there_are_is_all_pairs(settings):
    judge = Longer(**settings)
    np.testing.assert_array_equal(
        judge.verdict(PROMPTS, answers(6)).preference, Longer().judge(PROMPTS, answers(6).texts).preference
    )
    assert len(judge.asked) == judge.model_inputs(3, 6) == 3 * 6 * 5


def test_policies_are_compared_in_all_pairs():
    judge = Longer(opponents=1)
    judge.verdict(PROMPTS, answers(6, policies=3))
    assert len(judge.asked) == judge.model_inputs(3, 6, policies=3) == 3 * 6 * 5


def test_a_penalty_counts_before_the_mean_is_taken():
    """Of two truncated responses a penalty takes nothing from each other, and odds of 0.8 : 0.2 fall by e^1."""
    judge = Longer(opponents=1, truncated_penalty=1.0)
    judgement = judge.verdict(
        PROMPTS[:1], Answers([["x", "xx", "xxx", "xxxx"]], np.array([[True] * 2 + [False] * 2]), [""])
    )
    rival = {a: b for _, a, b in judge.asked}
    for a, b in rival.items():
        odds = (4 if a > b else 1 / 4) * np.exp((b < 2) * 1.0 - (a < 2) * 1.0)
        assert leave_one_out(judgement.preference)[0, a] == pytest.approx(odds / (1 + odds), abs=1e-12)


def test_an_ensemble_draws_for_the_members_that_ask_for_it():
    longer = {"name": "llm_judge", "model": "m", "opponents": 1}
    with pytest.raises(ConfigError, match=r"opponents` did not compare\. Set it in `judges`, for each\."):
        try:
            build("judges", {"name": "ensemble", "truncated_penalty": "lose", "judges": [longer]}, Judge)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    ensemble = build("judges", {"name": "ensemble", "judges": [longer, {"name": "pairrm"}]}, Judge)
    assert ensemble.model_inputs(1, 8) == 8 + 8 * 7
    assert ensemble.model_inputs(1, 8, policies=2) == 2 * 8 * 7


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_other_numbers_are_refused(value):
    with pytest.raises(ValueError, match="opponents"):
        build("judges", {"name": "pairrm", "opponents": value}, Judge)
