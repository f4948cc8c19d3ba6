"""Sampling and judging as the steps need them, and rollouts as Parquet files that pandas reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.generation import Engine, Sampling
from components.judges import Judge, Judgement
from components.progress import Progress, silent
from components.records import Prompt, Ragged, Rollout, Scored
from components.seeds import derive_seed

if TYPE_CHECKING:  # `gather` and `end` read rollouts and need no torch
    from components.policy import Policy


def generate(
    policy: Policy,
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    responses: int,
    sampling: Sampling,
    seed: int,
    purpose: str,
    iteration: int,
    progress: Progress = silent,
) -> Rollout:
    """K responses to each prompt.

    Each response has a seed of its own, from run seed, purpose ("train" or "evaluate"), iteration, prompt id
    and k: a shard that runs again, alone or among others, draws the same responses.
    """
    tokens = [policy.encode(prompt) for prompt in prompts]
    seeds = [[derive_seed(seed, purpose, iteration, p.id, k) for k in range(responses)] for p in prompts]
    samples = engine.sample(policy, tokens, np.array(seeds, dtype=np.uint64), sampling, progress)
    rows = [samples.tokens[i] for i in range(len(samples.tokens))]
    return Rollout([p.id for p in prompts], Ragged.of(tokens), samples.tokens, policy.decode(rows), samples.finished)


def judge(
    judge: Judge, prompts: Sequence[Prompt], rollouts: Sequence[Rollout], progress: Progress = silent
) -> Judgement:
    """One judgement over the responses of several rollouts to the same prompts, in the order given."""
    groups = [[text for r in rollouts for text in r.group(i)] for i in range(len(prompts))]
    return judge.judge(prompts, groups, progress)


def _lists(ragged: Ragged) -> pa.ListArray:
    return pa.LargeListArray.from_arrays(ragged.offsets, ragged.values)


def _nested(inner: pa.Array, n: int) -> pa.ListArray:
    offsets = np.arange(n + 1, dtype=np.int64) * (len(inner) // n)
    return pa.LargeListArray.from_arrays(offsets, inner)


def _ragged(column: pa.ChunkedArray) -> Ragged:
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False)
    lengths = np.asarray(lists.value_lengths())
    return Ragged(values.astype(np.int32, copy=False), np.concatenate([[0], lengths.cumsum()]).astype(np.int64))


def save_rollout(rollout: Rollout, path: Path) -> Path:
    """One row per prompt: prompt_id, prompt_tokens, responses (token ids), texts, finished."""
    pq.write_table(pa.table(_rollout_columns(rollout)), path)
    return path


def _rollout_columns(rollout: Rollout) -> dict[str, pa.Array]:
    n = rollout.shape[0]
    return {
        "prompt_id": pa.array(rollout.prompt_ids, pa.string()),
        "prompt_tokens": _lists(rollout.prompt_tokens),
        "responses": _nested(_lists(rollout.tokens), n),
        "texts": _nested(pa.array(rollout.texts, pa.large_string()), n),
        "finished": _nested(pa.array(rollout.finished.reshape(-1)), n),
    }


def save_scored(scored: Scored, path: Path) -> Path:
    """`save_rollout`'s columns and logp_old, logp_ref, reward (K each), preference (K·K, row by row)."""
    n = scored.rollout.shape[0]
    numbers = ("logp_old", "logp_ref", "reward", "preference")
    columns = {name: _nested(pa.array(getattr(scored, name).reshape(-1)), n) for name in numbers}
    pq.write_table(pa.table({**_rollout_columns(scored.rollout), **columns}), path)
    return path


def load_rollout(path: Path) -> Rollout:
    """Reads what `save_rollout` or `save_scored` wrote."""
    table = pq.read_table(path, columns=["prompt_id", "prompt_tokens", "responses", "texts", "finished"])
    n = table.num_rows
    responses = table["responses"].combine_chunks().flatten()
    return Rollout(
        prompt_ids=table["prompt_id"].to_pylist(),
        prompt_tokens=_ragged(table["prompt_tokens"]),
        tokens=_ragged(pa.chunked_array([responses])),
        texts=table["texts"].combine_chunks().flatten().to_pylist(),
        finished=table["finished"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(n, -1),
    )


def load_scored(path: Path) -> Scored:
    """Reads what `save_scored` wrote."""
    rollout = load_rollout(path)
    n, k = rollout.shape
    table = pq.read_table(path, columns=["logp_old", "logp_ref", "reward", "preference"])
    numbers = {name: table[name].combine_chunks().flatten().to_numpy() for name in table.column_names}
    return Scored(
        rollout=rollout,
        logp_old=numbers["logp_old"].reshape(n, k),
        logp_ref=numbers["logp_ref"].reshape(n, k),
        preference=numbers["preference"].reshape(n, k, k),
        reward=numbers["reward"].reshape(n, k),
    )
