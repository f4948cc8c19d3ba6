"""Length, distinct n-grams and repetition, counted by hand and by sets of tuples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.data.records import Ragged, Rollout
from components.evaluation import text

END = 99


def rollout(rows, m=1, finished=None):
    """Responses of these tokens; a finished one has END behind them."""
    n = len(rows) // m
    done = np.ones(len(rows), dtype=bool) if finished is None else np.array(finished)
    tokens = [[*row, END] if whole else row for row, whole in zip(rows, done, strict=True)]
    texts = [" ".join(map(str, row)) for row in rows]
    return Rollout([str(i) for i in range(n)], Ragged.of([[1]] * n), Ragged.of(tokens), texts, done.reshape(n, m))


def grams(row, order):
    return [tuple(row[at : at + order]) for at in range(len(row) - order + 1)]


def test_within_by_hand():
    """a b a b a: 2 of 5 words differ, ab and ba of 4 pairs, aba and bab of 3 triples; a single token has no pair."""
    tokens = Ragged.of([[1, 2, 1, 2, 1], [7], []])
    shares = [text.within(tokens, order) for order in (1, 2, 3)]
    assert [float(share[0]) for share in shares] == pytest.approx([2 / 5, 2 / 4, 2 / 3])
    assert shares[0][1] == 1
    assert np.isnan([shares[0][2], shares[1][1], shares[2][2]]).all()


def test_figures_by_hand():
    """Two responses to each of two prompts, in tokens without the end: a b, a b / c c c c c, c.

    Over prompts: the first responses a b and c c c c c have 3 different words of 7 and 2 different pairs of 5, the
    second ones a b and c 3 of 3 and 1 of 1. Of c c c c c the second 4-gram repeats the first: 1/2, others have none.
    """
    rows = [[1, 2], [1, 2], [3] * 5, [3]]
    figures = text.measured(rollout(rows, 2, [True, True, False, True])).figures()
    assert figures == pytest.approx(
        {
            "response_length": (3 + 3 + 5 + 2) / 4,
            "truncated": 1 / 4,
            "distinct_1": (1 + 1 + 1 / 5 + 1) / 4,
            "distinct_2": (1 + 1 + 1 / 4) / 3,
            "distinct_3": 1 / 3,
            "distinct_1_across": (3 / 7 + 3 / 3) / 2,
            "distinct_2_across": (2 / 5 + 1 / 1) / 2,
            "distinct_3_across": math.nan,
            "repetition": (1 / 2) / 4,
        },
        nan_ok=True,
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("m", [1, 2])
def test_against_sets_of_tuples(order, m):
    rng = np.random.default_rng(order)
    rows = [rng.integers(0, 6, rng.integers(0, 12)).tolist() for _ in range(20 * m)]
    within = text.within(Ragged.of(rows), order)
    for row, share in zip(rows, within, strict=True):
        found = grams(row, order)
        assert share == pytest.approx(len(set(found)) / len(found) if found else math.nan, nan_ok=True)
    share, values = text.across(Ragged.of(rows), order, m)

    def over(left_out=None):
        shares = []
        for k in range(m):
            every = [gram for i in range(20) if i != left_out for gram in grams(rows[i * m + k], order)]
            shares.append(len(set(every)) / len(every))
        return np.mean(shares)

    assert share == pytest.approx(over())
    assert values == pytest.approx([20 * over() - 19 * over(i) for i in range(20)])


def test_the_spread_of_pseudo_values_is_the_standard_error():
    """Of distinct-2 over 60 prompts with ten words each, a third of them of one favourite: the jackknife's standard
    error is that of 200 repetitions, within a fifth."""
    rng = np.random.default_rng(0)

    def drawn():
        rows = np.where(rng.random((60, 10)) < 1 / 3, 0, rng.zipf(1.5, (60, 10)) % 1000)
        return text.across(Ragged.of(rows), 2, 1)

    found = [drawn() for _ in range(200)]
    errors = [values.std(ddof=1) / math.sqrt(60) for _, values in found]
    assert np.mean(errors) == pytest.approx(np.std([share for share, _ in found], ddof=1), rel=0.2)


def test_equally_long():
    """The longer of each pair loses its end."""
    ours, theirs = text.equally_long(Ragged.of([[1, 2, 3], [4]]), Ragged.of([[5, 6], [7, 8]]))
    assert [ours[0].tolist(), ours[1].tolist()] == [[1, 2], [4]]
    assert [theirs[0].tolist(), theirs[1].tolist()] == [[5, 6], [7]]


def test_answers_that_sharpen_to_one_are_as_distinct_over_prompts_as_before():
    """Both responses to each prompt the same, where they differed before: no loss over prompts."""
    varied = rollout([[10 * i + k] for i in range(20) for k in range(2)], 2)
    sharp = rollout([[10 * i] for i in range(20) for _ in range(2)], 2)
    assert text.measured(sharp).across[1] == text.measured(varied).across[1] == 1


def test_a_response_without_tokens_has_no_n_grams():
    empty = text.measured(rollout([[], []], 1)).figures()
    assert math.isnan(empty["distinct_1"])
    assert math.isnan(empty["distinct_1_across"])
    assert empty["repetition"] == 0
