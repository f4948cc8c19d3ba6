"""Seeds: what they are made of, and that nothing else has a say."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from components.data.seeds import derive_seed, generator


def test_is_the_hash_of_its_parts():
    digest = hashlib.sha256(b'[7,"train",2,"prompt 3",0]').digest()
    assert derive_seed(7, "train", 2, "prompt 3", 0) == int.from_bytes(digest[:8], "little")


def test_fits_64_bits():
    seeds = np.array([derive_seed(i) for i in range(1000)], dtype=np.uint64)
    assert len(np.unique(seeds)) == 1000
    assert (seeds >> np.uint64(63)).mean() == pytest.approx(0.5, abs=0.08)  # every bit is in use: 5 standard errors


def test_every_part_counts_and_its_type_and_place_too():
    parts = [(0, "train", 1, "a", 0), (1, "train", 1, "a", 0), (0, "evaluate", 1, "a", 0), (0, "train", 2, "a", 0)]
    parts += [(0, "train", 1, "b", 0), (0, "train", 1, "a", 1), (0, "train", "1", "a", 0), (0, 1, "train", "a", 0)]
    parts += [(0, "train", 1, "a"), (0, 'train",1,"a', 0), ()]
    assert len({derive_seed(*p) for p in parts}) == len(parts)


@pytest.mark.parametrize("prompt_id", ["", "ü", "日本", "\ud800", '"', "\n"])
def test_any_text_can_be_a_prompt_id(prompt_id):
    assert derive_seed(prompt_id) != derive_seed(prompt_id + "x")


def test_generators_repeat_and_differ():
    first, again, other = (generator(0, purpose).random(1000) for purpose in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.15
    assert not np.intersect1d(first, other).size


def test_a_grid_of_seeds_has_no_repeats():
    grid = itertools.product(range(3), ("train", "evaluate"), range(1, 6), (f"p{i}" for i in range(20)), range(8))
    seeds = [derive_seed(*parts) for parts in grid]
    assert len(set(seeds)) == len(seeds) == 3 * 2 * 5 * 20 * 8
