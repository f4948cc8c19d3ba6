"""Rollouts: Parquet round trips, joining shards, and sampling whose seeds depend on nothing but their purpose."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from components import rollouts
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.judges.verifier import Verifier
from components.records import Prompt, Ragged, Rollout, Scored
from tiny import make_policy, make_prompts

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
    elif isinstance(left, Ragged | Rollout | Scored):
        for field in fields(left):
            assert_equal(getattr(left, field.name), getattr(right, field.name))
    else:
        assert left == right


@pytest.mark.parametrize(("n", "k"), [(1, 2), (3, 2), (3, 5), (7, 4)])
def test_round_trip(tmp_path, n, k):
    rollout, scored = make_rollout(n, k), make_scored(n, k)
    rollouts.save_rollout(rollout, tmp_path / "rollout.parquet")
    assert_equal(rollouts.load_rollout(tmp_path / "rollout.parquet"), rollout)
    rollouts.save_scored(scored, tmp_path / "scored.parquet")
    assert_equal(rollouts.load_scored(tmp_path / "scored.parquet"), scored)
    assert_equal(rollouts.load_rollout(tmp_path / "scored.parquet"), rollout)


def test_round_trip_of_empty_responses(tmp_path):
    empty = Rollout(["a"], Ragged.of([[5]]), Ragged.of([[], []]), ["", ""], np.array([[False, False]]))
    rollouts.save_rollout(empty, tmp_path / "rollout.parquet")
    assert_equal(rollouts.load_rollout(tmp_path / "rollout.parquet"), empty)


def test_file_in_several_row_groups(tmp_path):
    """As other tools write it; its columns then come in chunks whose offsets do not start at zero."""
    scored = make_scored(7, 3)
    rollouts.save_scored(scored, tmp_path / "whole.parquet")
    table = pq.read_table(tmp_path / "whole.parquet")
    with pq.ParquetWriter(tmp_path / "pieces.parquet", table.schema) as writer:
        for begin, length in ((0, 2), (2, 1), (3, 4)):
            writer.write_table(table.slice(begin, length))
    assert pq.ParquetFile(tmp_path / "pieces.parquet").num_row_groups == 3
    assert_equal(rollouts.load_scored(tmp_path / "pieces.parquet"), scored)


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


def test_ragged_concatenate_by_hand():
    parts = [Ragged.of([[1, 2], []]), Ragged.of([]), Ragged.of([[3], [4, 5, 6]])]
    joined = Ragged.concatenate(parts)
    assert joined.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert joined.offsets.tolist() == [0, 2, 2, 3, 6]
    assert (joined.values.dtype, joined.offsets.dtype) == (np.int32, np.int64)
    assert [row.tolist() for row in map(joined.__getitem__, range(4))] == [[1, 2], [], [3], [4, 5, 6]]


def test_scored_concatenate_by_hand():
    first, second = make_scored(2, 3, ids="a"), make_scored(1, 3, ids="b", seed=1)
    joined = Scored.concatenate([first, second])
    assert joined.rollout.prompt_ids == ["a0", "a1", "b0"]
    assert joined.rollout.shape == (3, 3)
    assert joined.rollout.prompt_tokens.offsets.tolist() == [0, 1, 3, 4]
    # Lengths (i + j) % 4: prompts a0, a1 and b0.
    assert joined.rollout.tokens.lengths.tolist() == [0, 1, 2, 1, 2, 3, 0, 1, 2]
    assert joined.rollout.group(2) == second.rollout.texts
    for name, shape in {"logp_old": (3, 3), "logp_ref": (3, 3), "preference": (3, 3, 3), "reward": (3, 3)}.items():
        array = getattr(joined, name)
        assert array.shape == shape
        np.testing.assert_array_equal(array[2], getattr(second, name)[0])
        np.testing.assert_array_equal(array[:2], getattr(first, name))


@pytest.fixture(scope="module")
def policy():
    return make_policy()


def sample(policy, prompts, **changed):
    run = {"responses": 3, "sampling": Sampling(12), "seed": 0, "purpose": "train", "iteration": 1, **changed}
    return rollouts.generate(policy, TransformersEngine(), prompts, **run)


def token_rows(rollout):
    k = rollout.shape[1]
    return {p: [rollout.tokens[i * k + j].tolist() for j in range(k)] for i, p in enumerate(rollout.prompt_ids)}


def test_generate_gives_each_prompt_its_responses(policy):
    prompts = make_prompts(5)
    rollout = sample(policy, prompts)
    assert rollout.prompt_ids == [p.id for p in prompts]
    assert rollout.shape == (5, 3)
    assert [row.tolist() for row in map(rollout.prompt_tokens.__getitem__, range(5))] == [
        policy.encode(p) for p in prompts
    ]
    assert len(rollout.texts) == len(rollout.tokens) == 15
    for row, text in enumerate(rollout.texts):
        tokens = rollout.tokens[row].tolist()
        assert text == policy.tokenizer.decode(tokens, skip_special_tokens=True)
        assert rollout.finished.reshape(-1)[row] == (tokens[-1] in policy.eos_ids)
        assert rollout.finished.reshape(-1)[row] or len(tokens) == 12


def test_responses_do_not_depend_on_the_other_prompts(policy):
    prompts = make_prompts(5)
    together = token_rows(sample(policy, prompts))
    alone = {name: rows for p in prompts for name, rows in token_rows(sample(policy, [p])).items()}
    assert alone == together
    assert token_rows(sample(policy, prompts[::-1])) == together


def test_responses_do_not_depend_on_how_many_there_are(policy):
    prompts = make_prompts(2)
    more = token_rows(sample(policy, prompts, responses=5))
    assert token_rows(sample(policy, prompts)) == {name: rows[:3] for name, rows in more.items()}


def test_seeds_differ_by_all_that_they_are_made_of(policy):
    """The same text throughout: what differs is the run, the purpose, the iteration, the prompt's id or k."""
    twins = [Prompt(name, make_prompts(4)[3].messages) for name in ("one", "two")]
    variants = [{}, {"seed": 1}, {"purpose": "evaluate"}, {"iteration": 2}]
    drawn = [tuple(row) for v in variants for rows in token_rows(sample(policy, twins, **v)).values() for row in rows]
    assert len(set(drawn)) == len(drawn) == 4 * 2 * 3


def test_judge_sees_all_rollouts_of_a_prompt_in_order():
    """Scores are the first digit of the text: prompt one has 3, 1 and then 2, 2; prompt two 0, 0 and 9, 5."""
    rows = [["3", "1", "0", "0"], ["2", "2", "9", "5"]]
    token = Ragged.of([[1], [1]])
    pair = [Rollout(["one", "two"], token, Ragged.of([[1]] * 4), texts, np.ones((2, 2), bool)) for texts in rows]
    judgement = rollouts.judge(Verifier(function=f"{__name__}:number"), make_prompts(2), pair)
    assert judgement.reward.tolist() == [[3, 1, 2, 2], [0, 0, 9, 5]]
    assert judgement.preference[0].tolist() == [
        [0.5, 1, 1, 1],
        [0, 0.5, 0, 0],
        [0, 1, 0.5, 0.5],
        [0, 1, 0.5, 0.5],
    ]


def number(response, prompt):
    return float(response)
