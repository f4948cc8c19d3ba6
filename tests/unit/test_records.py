"""The records that steps hand to each other."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.records import Prompt, Ragged, Responses, Rollout


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


def test_shape_of_responses():
    assert Responses(["a", "b"], Ragged.of([[1], [2]]), Ragged.of([[1], [], [2, 3], [4], [], []])).shape == (2, 3)


def test_group_of_a_rollout():
    texts = [f"text {i}" for i in range(6)]
    prompts, tokens = Ragged.of([[1], [2], [3]]), Ragged.of([[i] for i in range(6)])
    rollout = Rollout(["a", "b", "c"], prompts, tokens, texts, np.ones((3, 2), bool))
    assert rollout.shape == (3, 2)
    assert rollout.group(1) == ["text 2", "text 3"]
