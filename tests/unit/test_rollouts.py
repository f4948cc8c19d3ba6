"""Rollouts: Parquet round trips, what gather and train leave unread, and seeds that depend only on their purpose."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from components import prompts, stages
from components.data import rollouts
from components.data.records import Ragged, Responses, Rollout, Scored
from components.run_config import RunConfig
from components.stages.context import open_workspace
from support.models.tiny import make_prompts

TEXTS = ["", "plain", "日本語 ÄÖÜ", '🙂\n\ttab, "quote" and \0 null']


def make_rollout(n, k, *, ids="p"):
    """Prompts of 1 to n tokens; response j of prompt i has (i + j) % 4 tokens, so some have none."""
    prompts = [np.arange(i + 1) for i in range(n)]
    responses = [np.arange((i + j) % 4) + 10 * i + j for i in range(n) for j in range(k)]
    texts = [TEXTS[row % len(TEXTS)] for row in range(n * k)]
    finished = np.arange(n * k).reshape(n, k) % 3 != 0
    return Rollout([f"{ids}{i}" for i in range(n)], Ragged.of(prompts), Ragged.of(responses), texts, finished)


def make_scored(n, k, *, ids="p", seed=0):
    rng = np.random.default_rng(seed)
    old, ref, reward = rng.normal(size=(3, n, k))
    reward[0, 0] = np.nan
    return Scored(make_rollout(n, k, ids=ids), old, ref, rng.random((n, k, k)), reward)


def assert_equal(left, right):
    """Same values, types and shapes, through all fields."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        np.testing.assert_array_equal(left, right)
    elif isinstance(left, Ragged | Responses | Scored):
        for field in fields(left):
            assert_equal(getattr(left, field.name), getattr(right, field.name))
    else:
        assert left == right


def for_training(scored):
    """The same without what training does not read."""
    rollout = scored.rollout
    return replace(scored, rollout=Responses(rollout.prompt_ids, rollout.prompt_tokens, rollout.tokens))


@pytest.mark.parametrize(("n", "k"), [(1, 2), (3, 2), (3, 5), (7, 4), (rollouts.ROWS + 2, 2)])
def test_round_trip(tmp_path, n, k):
    rollout, scored = make_rollout(n, k), make_scored(n, k)
    rollouts.save_rollout(rollout, tmp_path / "rollout.parquet")
    assert_equal(rollouts.load_rollout(tmp_path / "rollout.parquet"), rollout)
    rollouts.save_scored(scored, tmp_path / "scored.parquet")
    assert_equal(rollouts.load_scored(tmp_path / "scored.parquet"), for_training(scored))
    assert_equal(rollouts.load_rollout(tmp_path / "scored.parquet"), rollout)


def test_what_was_loaded_for_training_can_be_saved(tmp_path):
    rollouts.save_scored(for_training(make_scored(3, 2)), tmp_path / "lean.parquet")
    assert_equal(rollouts.load_scored(tmp_path / "lean.parquet"), for_training(make_scored(3, 2)))


def test_round_trip_of_empty_responses(tmp_path):
    empty = Rollout(["a"], Ragged.of([[5]]), Ragged.of([[], []]), ["", ""], np.array([[False, False]]))
    rollouts.save_rollout(empty, tmp_path / "rollout.parquet")
    assert_equal(rollouts.load_rollout(tmp_path / "rollout.parquet"), empty)
    assert rollouts.count(tmp_path / "rollout.parquet") == rollouts.Counts(["a"], responses=2, tokens=0)


def test_log_probs_of_the_engine_stay_with_their_responses(tmp_path):
    scored = make_scored(3, 2)
    assert rollouts.logp_difference(rollouts.save_scored(scored, tmp_path / "none.parquet")) is None
    rollout = replace(scored.rollout, logp_engine=np.add(scored.logp_old, [[0.5, -0.25], [0.0, -2.0], [1.0, 0.0]]))
    rollouts.save_rollout(rollout, tmp_path / "rollout.parquet")
    loaded = rollouts.load_rollout(tmp_path / "rollout.parquet")
    assert_equal(loaded, rollout)
    rollouts.save_scored(replace(scored, rollout=loaded), tmp_path / "scored.parquet")
    assert_equal(rollouts.load_rollout(tmp_path / "scored.parquet"), rollout)
    assert rollouts.logp_difference(tmp_path / "scored.parquet") == pytest.approx(2.0)


def test_file_in_several_row_groups(tmp_path):
    """As other tools write it; its columns then come in chunks whose offsets do not start at zero."""
    scored = make_scored(7, 3)
    rollouts.save_scored(scored, tmp_path / "whole.parquet")
    counts = rollouts.count(tmp_path / "whole.parquet")
    table = pq.read_table(tmp_path / "whole.parquet")
    with pq.ParquetWriter(tmp_path / "pieces.parquet", table.schema) as writer:
        for begin, length in ((0, 2), (2, 1), (3, 4)):
            writer.write_table(table.slice(begin, length))
    assert pq.ParquetFile(tmp_path / "pieces.parquet").num_row_groups == 3
    assert_equal(rollouts.load_scored(tmp_path / "pieces.parquet"), for_training(scored))
    assert_equal(rollouts.load_rollout(tmp_path / "pieces.parquet"), scored.rollout)
    # Lengths (i + j) % 4: 0 1 2 | 1 2 3 | 2 3 0 | 3 0 1, and the first three prompts' again.
    assert rollouts.count(tmp_path / "pieces.parquet") == counts
    assert counts == rollouts.Counts([f"p{i}" for i in range(7)], responses=21, tokens=3 + 6 + 5 + 4 + 3 + 6 + 5)


def test_pandas_reads_a_row_per_prompt(tmp_path):
    rollouts.save_scored(make_scored(3, 2), tmp_path / "scored.parquet")
    frame = pd.read_parquet(tmp_path / "scored.parquet")
    assert list(frame) == [
        *("prompt_id", "prompt_tokens", "responses", "texts", "finished"),
        *("logp_old", "logp_ref", "reward", "preference"),
    ]
    assert frame["prompt_id"].tolist() == ["p0", "p1", "p2"]
    row = frame.iloc[2]
    assert row["prompt_tokens"].tolist() == [0, 1, 2]
    # Responses 4 and 5 of the file: (2 + 0) % 4 = 2 tokens from 20, (2 + 1) % 4 = 3 tokens from 21.
    assert [tokens.tolist() for tokens in row["responses"]] == [[20, 21], [21, 22, 23]]
    assert row["texts"].tolist() == ["", "plain"]
    assert row["finished"].tolist() == [True, True]
    assert [len(row[name]) for name in ("logp_old", "logp_ref", "reward", "preference")] == [2, 2, 2, 4]


def test_shards_are_read_in_order(tmp_path):
    shards = [make_scored(n, 3, ids=name, seed=n) for n, name in ((2, "a"), (1, "b"), (3, "c"))]
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for scored, path in zip(shards, paths, strict=True):
        rollouts.save_scored(scored, path)
    joined = rollouts.load_scored(*paths)
    assert joined.rollout.prompt_ids == ["a0", "a1", "b0", "c0", "c1", "c2"]
    assert joined.rollout.shape == (6, 3)
    assert [row.tolist() for row in joined.rollout.prompt_tokens] == [[0], [0, 1], [0], [0], [0, 1], [0, 1, 2]]
    # Response j of a shard's prompt i: (i + j) % 4 tokens from 10·i + j.
    rows = [[[], [1], [2, 3]], [[10], [11, 12], [12, 13, 14]], [[20, 21], [21, 22, 23], []]]
    expected = [row for n in (2, 1, 3) for group in rows[:n] for row in group]
    assert [row.tolist() for row in joined.rollout.tokens] == expected
    for name, shape in {"logp_old": (6, 3), "logp_ref": (6, 3), "preference": (6, 3, 3), "reward": (6, 3)}.items():
        array = getattr(joined, name)
        assert array.shape == shape
        for scored, part in zip(shards, np.split(array, [2, 3]), strict=True):
            np.testing.assert_array_equal(part, getattr(scored, name))


def keep_columns(path, out, columns):
    pq.write_table(pq.read_table(path, columns=columns), out)


def destroy_tokens(path):
    """Overwrites the data pages of the responses' tokens; the footer stays."""
    footer = pq.read_metadata(path)
    (chunk,) = (
        c for c in map(footer.row_group(0).column, range(footer.num_columns)) if "responses" in c.path_in_schema
    )
    with path.open("r+b") as file:
        file.seek(chunk.dictionary_page_offset)
        file.write(b"\xff" * chunk.total_compressed_size)


def test_training_reads_no_texts(tmp_path):
    scored = make_scored(3, 2)
    rollouts.save_scored(scored, tmp_path / "whole.parquet")
    needed = ["prompt_id", "prompt_tokens", "responses", "logp_old", "logp_ref", "reward", "preference"]
    keep_columns(tmp_path / "whole.parquet", tmp_path / "lean.parquet", needed)
    assert_equal(rollouts.load_scored(tmp_path / "lean.parquet"), for_training(scored))


def test_gather_reads_neither_tokens_nor_texts(tmp_path):
    """From files that have no texts and whose tokens no reader can decode."""
    planned, sizes = make_prompts(5), (3, 2)
    config = RunConfig.model_validate({"demo": {}})

    def write(path, part):
        rollout = make_rollout(len(part), 3)
        rollouts.save_rollout(replace(rollout, prompt_ids=[p.id for p in part]), tmp_path / "whole.parquet")
        keep_columns(tmp_path / "whole.parquet", path, ["prompt_id", "responses", "finished"])
        destroy_tokens(path)
        with pytest.raises(OSError, match="page header"):
            pq.read_table(path, columns=["responses"])

    with open_workspace(config, str(tmp_path / "store"), "gather") as work:
        parts = [planned[: sizes[0]], planned[sizes[0] :]]
        shards = [work.keep("shard.jsonl", lambda path, part=part: prompts.save(part, path)) for part in parts]
        scored = [work.keep("rollout.parquet", lambda path, part=part: write(path, part)) for part in parts]
        # Lengths (i + j) % 4: 0 1 2 | 1 2 3 | 2 3 0 in the first file, 0 1 2 | 1 2 3 in the second.
        expected = {"prompts": 5, "responses": 15, "tokens_generated": 3 + 6 + 5 + 3 + 6}
        assert stages.gather(work, shards, scored) == expected
        with pytest.raises(ValueError, match="hold 3 prompts and not the 5 planned ones; missing: p3, p4"):
            stages.gather(work, shards, scored[:1])


def number(response, prompt):
    return float(response)
