"""Rollouts as Parquet files that pandas reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.parts import PART
from components.data.records import Ragged, Responses, Rollout, Scored

ROWS = 1024  # decoded at a time: a column of 60,000 prompts in one go takes three times the memory of its tokens
TOKEN_FIGURES = ("token_logp_old", "token_logp_ref")
TOKEN_LOGP = "token_logp"
USAGE = b"judge_usage"  # key of the file's metadata

Parts = Mapping[str, NDArray[np.float64]]  # as in Judgement


@dataclass(frozen=True)
class Counts:
    """What a rollout file holds."""

    prompt_ids: list[str]
    responses: int
    tokens: int  # of all responses


def _lists(ragged: Ragged) -> pa.ListArray:
    return pa.LargeListArray.from_arrays(ragged.offsets, ragged.values)


def _nested(inner: pa.Array, n: int) -> pa.ListArray:
    offsets = np.arange(n + 1, dtype=np.int64) * (len(inner) // n)
    return pa.LargeListArray.from_arrays(offsets, inner)


def save_rollout(
    rollout: Rollout, path: Path, reward: NDArray[np.float64] | None = None, parts: Parts | None = None
) -> Path:
    """One row per prompt: prompt_id, prompt_tokens, responses (token ids), texts, finished.

    With prompt_end, logp_engine, reward, `part_<name>` (K each) and token_logp (K lists, one figure per token) if they
    are known.
    """
    columns = _columns(rollout)
    if rollout.token_logp is not None:
        columns[TOKEN_LOGP] = _token_lists(rollout.token_logp, rollout)
    if reward is not None:
        columns["reward"] = _rows(reward)
    pq.write_table(pa.table(columns | _part_columns(parts)), path)
    return path


def _part_columns(parts: Parts | None) -> dict[str, pa.Array]:
    return {PART + name: _rows(values) for name, values in (parts or {}).items()}


def _rows(figures: NDArray[Any]) -> pa.ListArray:
    return _nested(pa.array(figures.reshape(-1)), len(figures))


def _token_lists(figures: NDArray[np.float32], rollout: Responses) -> pa.ListArray:
    return _nested(pa.LargeListArray.from_arrays(rollout.tokens.offsets, figures), rollout.shape[0])


def _columns(rollout: Responses) -> dict[str, pa.Array]:
    n = rollout.shape[0]
    columns = {
        "prompt_id": pa.array(rollout.prompt_ids, pa.string()),
        "prompt_tokens": _lists(rollout.prompt_tokens),
        "responses": _nested(_lists(rollout.tokens), n),
    }
    if isinstance(rollout, Rollout):
        columns["texts"] = _nested(pa.array(rollout.texts, pa.large_string()), n)
        columns["finished"] = _rows(rollout.finished)
        if rollout.prompt_ends is not None:
            columns["prompt_end"] = pa.array(rollout.prompt_ends, pa.string())
        if rollout.logp_engine is not None:
            columns["logp_engine"] = _rows(rollout.logp_engine)
    return columns


def save_scored(
    scored: Scored, path: Path, parts: Parts | None = None, usage: Mapping[str, float] | None = None
) -> Path:
    """`save_rollout`'s columns and logp_old, logp_ref, reward (K each), preference (K·K, row by row).

    With token_logp_old and token_logp_ref (K lists each, one figure per token) if they are known. What `load_scored`
    gave has no texts and no `finished` to write. Training reads no parts: they are for users. What a judge took for
    these prompts, as in Judgement, stands in the file's metadata.
    """
    numbers = ("logp_old", "logp_ref", "reward", "preference")
    columns = {name: _rows(getattr(scored, name)) for name in numbers}
    for name in TOKEN_FIGURES:
        if (values := getattr(scored, name)) is not None:
            columns[name] = _token_lists(values, scored.rollout)
    table = pa.table({**_columns(scored.rollout), **columns, **_part_columns(parts)})
    pq.write_table(table.replace_schema_metadata({USAGE: json.dumps(dict(usage))}) if usage else table, path)
    return path


def judge_usage(path: Path) -> dict[str, float]:
    """What the judge took for the prompts of a file of `save_scored`; empty for a judge that does not count."""
    found: dict[str, float] = json.loads((pq.read_schema(path).metadata or {}).get(USAGE, b"{}"))
    return found


def load_rollout(path: Path) -> Rollout:
    """Reads what `save_rollout` or `save_scored` wrote, the latter without token_logp, which it has summed."""
    responses = _load_responses([path])
    engine = _load_figures([path], "logp_engine").reshape(responses.shape) if _has(path, "logp_engine") else None
    return Rollout(
        prompt_ids=responses.prompt_ids,
        prompt_tokens=responses.prompt_tokens,
        tokens=responses.tokens,
        texts=[text for part in _read([path], "texts") for text in part.flatten().to_pylist()],
        finished=_load_figures([path], "finished").reshape(responses.shape),
        logp_engine=engine,
        token_logp=_load_token_figures([path], TOKEN_LOGP) if _has(path, TOKEN_LOGP) else None,
        prompt_ends=_load_texts([path], "prompt_end") if _has(path, "prompt_end") else None,
    )


def load_scored(*paths: Path) -> Scored:
    """Reads what `save_scored` wrote, the prompts of all files in order, without texts and `finished`."""
    responses = _load_responses(paths)
    n, k = responses.shape
    return Scored(
        rollout=responses,
        logp_old=_load_figures(paths, "logp_old").reshape(n, k),
        logp_ref=_load_figures(paths, "logp_ref").reshape(n, k),
        preference=_load_figures(paths, "preference").reshape(n, k, k),
        reward=_load_figures(paths, "reward").reshape(n, k),
        **{name: _load_token_figures(paths, name) for name in TOKEN_FIGURES if _has(paths[0], name)},
    )


def load_reward(path: Path, k: int) -> NDArray[np.float64]:
    """The rewards in a file of `save_rollout` or `save_scored`, (n, K)."""
    return _load_figures([path], "reward").reshape(-1, k)


def load_parts(path: Path, k: int) -> dict[str, NDArray[np.float64]]:
    """The parts of scores in a file of `save_rollout` or `save_scored`, each (n, K); an older file has none."""
    names = [name.removeprefix(PART) for name in pq.read_schema(path).names if name.startswith(PART)]
    return {name: _load_figures([path], PART + name).reshape(-1, k) for name in names}


def count(path: Path) -> Counts:
    """Counts what a file of `save_rollout` or `save_scored` holds; neither tokens nor texts are read."""
    ids = _load_texts([path], "prompt_id")
    return Counts(ids, responses=_count_values(path, "finished"), tokens=_count_values(path, "responses"))


def text_sizes(path: Path, beside: int) -> NDArray[np.int64]:
    """Bytes (UTF-8) of each prompt's responses and `beside` more for each response, (n,); texts are not decoded."""
    sizes = []
    for part in _read([path], "texts"):
        ends = np.concatenate([[0], pc.binary_length(part.flatten()).to_numpy().astype(np.int64).cumsum()])
        counts = part.value_lengths().to_numpy().astype(np.int64)
        last = counts.cumsum()
        sizes.append(ends[last] - ends[last - counts] + beside * counts)
    return np.concatenate(sizes)


def logp_difference(path: Path) -> float | None:
    """The largest |logp_engine - logp_old| in a file of `save_scored`, nats per response; None without logp_engine."""
    if not _has(path, "logp_engine"):
        return None
    engine, trainer = (_load_figures([path], name) for name in ("logp_engine", "logp_old"))
    return float(np.abs(engine - trainer).max())


def _has(path: Path, column: str) -> bool:
    return column in pq.read_schema(path).names


def _load_token_figures(paths: Sequence[Path], column: str) -> NDArray[np.float32]:
    return np.concatenate([part.flatten().flatten().to_numpy() for part in _read(paths, column)])


def _load_responses(paths: Sequence[Path]) -> Responses:
    responses = (part.flatten() for part in _read(paths, "responses"))
    return Responses(
        prompt_ids=_load_texts(paths, "prompt_id"),
        prompt_tokens=_join(_read(paths, "prompt_tokens"), sum(_count_values(p, "prompt_tokens") for p in paths)),
        tokens=_join(responses, sum(_count_values(p, "responses") for p in paths)),
    )


def _load_texts(paths: Sequence[Path], column: str) -> list[str]:
    return [text for part in _read(paths, column) for text in part.to_pylist()]


def _load_figures(paths: Sequence[Path], column: str) -> NDArray[Any]:
    return np.concatenate([part.flatten().to_numpy(zero_copy_only=False) for part in _read(paths, column)])


def _read(paths: Sequence[Path], column: str) -> Iterator[pa.Array]:
    """A column of all files, some rows at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=[column]):
                yield batch.column(0)


def _count_values(path: Path, column: str) -> int:
    """Numbers, or texts, in all lists of a column; the file's footer knows."""
    footer = pq.read_metadata(path)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(c.statistics.num_values for c in chunks if c.path_in_schema.partition(".")[0] == column)


def _join(parts: Iterable[pa.ListArray], total: int) -> Ragged:
    """The sequences of all parts, `total` tokens; never are more than one part's in memory twice."""
    values, lengths, end = np.empty(total, np.int32), [np.zeros(1, np.int64)], 0
    for part in parts:
        tokens = part.flatten().to_numpy()
        values[end : end + len(tokens)] = tokens
        lengths.append(part.value_lengths().to_numpy())
        end += len(tokens)
    return Ragged(values, np.concatenate(lengths).cumsum())
