"""The records that steps hand to each other."""

from __future__ import annotations

import numpy as np
import pytest

from components.records import Prompt, Ragged, Rollout, Scored


def as_lists(ragged):
    return [ragged[i].tolist() for i in range(len(ragged))]


def test_text_of_a_prompt_is_its_last_turn():
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"})
    assert Prompt("p", turns).text == "Why?"


def test_ragged_by_hand():
    ragged = Ragged.of([[5, 6], [], np.array([7], dtype=np.int64)])
    assert ragged.values.tolist() == [5, 6, 7]
    assert ragged.offsets.tolist() == [0, 2, 2, 3]
    assert (ragged.values.dtype, ragged.offsets.dtype) == (np.int32, np.int64)
    assert ragged.lengths.tolist() == [2, 0, 1]
    assert as_lists(ragged) == [[5, 6], [], [7]]


@pytest.mark.parametrize("index", [-1, 3])
def test_ragged_has_no_sequence_there(index):
    with pytest.raises(IndexError):
        Ragged.of([[1], [2], [3]])[index]


def test_ragged_of_nothing():
    ragged = Ragged.of([])
    assert len(ragged) == 0
    assert (ragged.values.dtype, ragged.offsets.tolist()) == (np.int32, [0])


def test_ragged_iterates():
    assert [row.tolist() for row in Ragged.of([[1], [], [2, 3]])] == [[1], [], [2, 3]]


def test_ragged_concatenates():
    parts = [Ragged.of([[1, 2], []]), Ragged.of([]), Ragged.of([[3], [4, 5, 6]])]
    joined = Ragged.concatenate(parts)
    assert as_lists(joined) == [[1, 2], [], [3], [4, 5, 6]]
    assert (joined.values.dtype, joined.offsets.dtype) == (np.int32, np.int64)


def rollout(ids, first):
    """Two responses per prompt, numbered on from `first`."""
    rows = [[first + i] * (1 + i % 3) for i in range(2 * len(ids))]
    return Rollout(
        prompt_ids=ids,
        prompt_tokens=Ragged.of([[100 + first, i] for i in range(len(ids))]),
        tokens=Ragged.of(rows),
        texts=[f"text {row[0]}" for row in rows],
        finished=np.arange(2 * len(ids)).reshape(-1, 2) % 2 == 0,
    )


def test_group_of_a_rollout():
    example = rollout(["a", "b", "c"], first=0)
    assert example.shape == (3, 2)
    assert example.group(1) == ["text 2", "text 3"]


def scored(ids, first):
    n = len(ids)
    numbers = first + np.arange(n * 2.0).reshape(n, 2)
    preference = np.full((n, 2, 2), 0.5)
    preference[:, 0, 1] = first
    return Scored(rollout(ids, first), numbers, numbers + 0.5, preference, -numbers)


def test_scored_concatenates_in_order():
    joined = Scored.concatenate([scored(["a", "b"], 0), scored(["c"], 10)])
    assert joined.rollout.prompt_ids == ["a", "b", "c"]
    assert joined.rollout.texts == [f"text {i}" for i in (0, 1, 2, 3, 10, 11)]
    assert as_lists(joined.rollout.prompt_tokens) == [[100, 0], [100, 1], [110, 0]]
    assert as_lists(joined.rollout.tokens) == [[0], [1, 1], [2, 2, 2], [3], [10], [11, 11]]
    assert joined.rollout.finished.tolist() == [[True, False]] * 3
    assert joined.logp_old.tolist() == [[0, 1], [2, 3], [10, 11]]
    assert joined.logp_ref.tolist() == [[0.5, 1.5], [2.5, 3.5], [10.5, 11.5]]
    assert joined.preference[:, 0, 1].tolist() == [0, 0, 10]
    assert joined.reward.tolist() == [[0, -1], [-2, -3], [-10, -11]]
