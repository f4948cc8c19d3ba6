"""Rows of a forward pass: how prompts and responses are laid out in them and divided into parts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from components.policy import batches
from components.policy.batches import collate, distinct_tokens, partition, prefix_positions
from support.logprobs import CPU, PAD


@pytest.fixture(params=[1, 256], ids=["many-parts", "one-part"])
def overhead(request, monkeypatch):
    """Tokens that another forward pass may cost: few, so that each length has its own, or many."""
    monkeypatch.setattr(batches, "OVERHEAD", request.param)


def test_collate_by_hand():
    """A row lacks the response's last token, which predicts nothing; the longest comes first."""
    batch = collate([[7, 8], [9]], [[10], [11, 12, 13]], PAD, CPU)
    assert batch.prefix is None
    assert batch.input_ids.tolist() == [[9, 11, 12], [7, 8, 10]]
    assert batch.rows.tolist() == [0, 0, 0, 1]
    assert batch.columns.tolist() == [0, 1, 2, 1]
    assert batch.targets.tolist() == [11, 12, 13, 10]
    assert batch.owners.tolist() == batch.places.tolist() == [1, 0]


def test_collate_groups_by_hand():
    """Two responses to each prompt share all but its last token."""
    batch = collate([[7, 8, 9], [6, 5]], [[10, 11], [12], [], [13]], PAD, CPU)
    assert batch.prefix.input_ids.tolist() == [[7, 8], [PAD, 6]]
    assert batch.prefix.mask.tolist() == [[1, 1], [0, 1]]
    assert batch.prefix.lengths.tolist() == [2, 1]
    assert prefix_positions(batch.prefix).tolist() == [[0, 1], [0, 0]]
    assert batch.input_ids.tolist() == [[9, 10], [9, 12], [5, 13], [5, PAD]]
    assert batch.rows.tolist() == [0, 0, 1, 2]
    assert batch.columns.tolist() == [0, 1, 0, 0]
    assert batch.targets.tolist() == [10, 11, 12, 13]
    assert batch.places.tolist() == [0, 1, 3, 2]


def test_collate_groups_without_a_prefix_by_hand():
    batch = collate([[7, 8, 9], [6, 5]], [[10, 11], [12], [], [13]], PAD, CPU, share_prompts=False)
    assert batch.prefix is None
    assert batch.input_ids.tolist() == [[7, 8, 9, 10], [7, 8, 9, 12], [6, 5, 13, PAD], [6, 5, PAD, PAD]]
    assert batch.rows.tolist() == [0, 0, 1, 2]
    assert batch.columns.tolist() == [2, 3, 2, 1]
    assert batch.targets.tolist() == [10, 11, 12, 13]
    assert batch.places.tolist() == [0, 1, 3, 2]


def test_rows_are_read_in_parts_of_similar_length(monkeypatch):
    """Rows of 10, 9, 4, 4 and 1 tokens; a cut at 4 saves 3·6 tokens, one at 9 or at 1 as much as 4."""
    lengths = np.array([10, 9, 4, 4, 1])
    for overhead, expected in [
        (0, [(0, 1), (1, 2), (2, 4), (4, 5)]),
        (2, [(0, 2), (2, 4), (4, 5)]),
        (4, [(0, 2), (2, 5)]),
        (17, [(0, 2), (2, 5)]),
        (19, [(0, 5)]),
    ]:
        monkeypatch.setattr(batches, "OVERHEAD", overhead)
        assert partition(lengths) == expected
    monkeypatch.setattr(batches, "OVERHEAD", 1)
    batch = collate([[7, 8], [9]], [[10, 11, 12], [10], [], [13]], PAD, CPU)
    assert [(part.rows, part.tokens, part.width) for part in batch.parts] == [
        (slice(0, 1), slice(0, 3), 3),
        (slice(1, 4), slice(3, 5), 1),
    ]


@pytest.mark.parametrize("overhead", [0, 5, 40, 1000])
def test_no_other_partition_is_cheaper(monkeypatch, overhead):
    """Every way to cut eight rows, by enumeration."""
    monkeypatch.setattr(batches, "OVERHEAD", overhead)
    rng = np.random.default_rng(0)

    def cost(lengths, ranges):
        return sum((end - begin) * lengths[begin] + overhead for begin, end in ranges)

    for _ in range(20):
        lengths = np.sort(rng.integers(1, 30, 8))[::-1]
        ways = []
        for bits in range(2**7):
            cuts = [0, *(i + 1 for i in range(7) if bits >> i & 1), 8]
            ways.append(cost(lengths, pairwise(cuts)))
        found = partition(lengths)
        assert cost(lengths, found) == min(ways)
        assert [i for begin, end in found for i in range(begin, end)] == list(range(8))


def test_equal_responses_to_a_prompt_share_a_row():
    """The first prompt's three responses are two rows; an equal response to the other prompt has a row of its own."""
    batch = collate([[7, 8], [9, 6]], [[10], np.array([11, 12]), [10], [10], [10], [10]], PAD, CPU)
    assert batch.input_ids.tolist() == [[8, 11], [8, 10], [6, 10]]
    assert batch.owners.tolist() == [0, 0, 1]
    assert batch.places.tolist() == [1, 0, 1, 2, 2, 2]
    assert batch.targets.tolist() == [11, 12, 10, 10]


def test_one_distinct_response_to_each_prompt_needs_no_prefix():
    batch = collate([[7, 8], [9, 6]], [[10], [10], [11], [11]], PAD, CPU)
    assert batch.prefix is None
    assert batch.input_ids.tolist() == [[7, 8], [9, 6]]


def test_distinct_tokens_by_hand():
    """Of the first three responses two are equal, of the last three all."""
    assert distinct_tokens([[1], [1], [2, 3], [1, 4], [1, 4], [1, 4]], 3).tolist() == [3, 2]
