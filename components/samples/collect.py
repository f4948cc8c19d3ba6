"""Reads a run's samples out of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import prompts as prompt_files
from components.algorithms import leave_one_out
from components.data import rollouts
from components.data.records import Prompt
from components.runtime.scratch import scratch
from components.samples.files import Answered, Drawn, RunFiles
from components.samples.records import Asked, Batch, Samples, Side, asked, fields
from components.store import Manifest, Store, open_store

LIMIT = 100_000_000  # bytes of a page that a browser still opens gladly
FIGURES = 80  # bytes that a response's figures take in it, about

ROLLOUT = "rollout.parquet"


def collect(files: RunFiles, *, prompts: int | None = None, limit: int = LIMIT) -> Samples:
    """The samples in a run's files.

    Args:
        files: those to show.
        prompts: how many of each iteration's prompts and of the held-out ones, the first; None: all, or as many as
            give a page of about `limit` bytes, which a note then says.
        limit: see there.

    Raises:
        BlobError: a file is missing from the store or damaged.
    """
    with scratch("samples") as folder:
        reader = _Reader(open_store(files.store_root), folder)
        drawn = [reader.drawn(one) for one in files.drawn if one.kept]
        held_out = reader.prompts(files.prompts, "evaluation")
        answered = [reader.answered(one, held_out) for one in files.answered]
        everything = [*drawn, *answered]
        shown = prompts or affordable([_sizes(asking) for asking in everything], limit)
        return Samples(
            run=files.run,
            notes=[*_unkept(files.drawn), *_cut(everything, shown)],
            trained=_side(drawn, shown, files.group_by, scored=True),
            held_out=_side(answered, shown, files.group_by, scored=False),
        )


def affordable(sizes: Sequence[NDArray[np.int64]], limit: int) -> int:
    """How many prompts of each iteration fit into so many bytes: all, or at least one.

    Args:
        sizes: of each iteration, the bytes that each prompt takes with the responses to it.
        limit: of all of them.
    """
    longest = max(len(one) for one in sizes)
    total = np.sum([np.pad(one, (0, longest - len(one))) for one in sizes], axis=0).cumsum()
    return max(1, int(np.searchsorted(total, limit, side="right")))


@dataclass(frozen=True)
class _Asking:
    """Prompts in the order of the rows of some rollout files."""

    iteration: int
    prompts: list[Prompt]
    paths: list[Path]


@dataclass(frozen=True)
class _Reader:
    """Brings files from the store."""

    store: Store
    folder: Path  # scratch

    def file(self, manifest: Manifest, name: str) -> Path:
        """A file, only to be read."""
        return self.store.view({name: manifest[name]}, Path(mkdtemp(dir=self.folder)), self.folder / "cache") / name

    def prompts(self, manifest: Manifest, name: str) -> list[Prompt]:
        """As `Workspace.prompts` gives them to the stages."""
        return prompt_files.load(str(self.file(manifest, f"{name}.jsonl")), split="train", allow_duplicates=True)

    def drawn(self, one: Drawn) -> _Asking:
        """What an iteration trained on."""
        chosen = [prompt for shard in one.shards for prompt in self.prompts(shard, "shard")]
        return _Asking(one.iteration, chosen, [self.file(manifest, ROLLOUT) for manifest in one.scored])

    def answered(self, one: Answered, held_out: list[Prompt]) -> _Asking:
        """Answers to the held-out prompts."""
        return _Asking(one.iteration, held_out, [self.file(one.rollout, ROLLOUT)])


def _sizes(asking: _Asking) -> NDArray[np.int64]:
    """Bytes of each prompt with the responses to it."""
    responses: NDArray[np.int64] = np.concatenate([rollouts.text_sizes(path, FIGURES) for path in asking.paths])
    chosen = [sum(len(turn["content"].encode()) for turn in prompt.messages) for prompt in asking.prompts]
    return responses + np.array(chosen, np.int64)


def _unkept(drawn: Iterable[Drawn]) -> list[str]:
    names = ", ".join(str(one.iteration) for one in drawn if not one.kept)
    return [f"Training drew its own responses and kept none; iterations: {names}."] if names else []


def _cut(askings: Iterable[_Asking], shown: int) -> list[str]:
    count = max(len(asking.prompts) for asking in askings)
    if shown >= count:
        return []
    return [
        f"Of the prompts of each iteration and of the held-out ones, up to {count:,}, the first {shown:,} are shown."
    ]


def _side(askings: Sequence[_Asking], shown: int, group_by: str | None, *, scored: bool) -> Side:
    """Each prompt once, with the responses to the first `shown` of each iteration."""
    rows: dict[str, int] = {}
    kept: list[Asked] = []
    batches = []
    for asking in askings:
        for prompt in asking.prompts[:shown]:
            if prompt.id not in rows:
                rows[prompt.id] = len(kept)
                kept.append(asked(prompt))
        chosen = [rows[prompt.id] for prompt in asking.prompts[:shown]]
        batches.append(_batch(asking.paths, asking.iteration, chosen, scored=scored))
    return Side(kept, fields(kept, group_by), batches)


def _batch(paths: Iterable[Path], iteration: int, rows: list[int], *, scored: bool) -> Batch:
    """The responses to the first prompts of some files."""
    read: list[dict[str, Any]] = []
    for path in paths:
        if (left := len(rows) - sum(len(one["reward"]) for one in read)) > 0:
            read.append(_read(path, left, scored=scored))
    names = dict.fromkeys(name for one in read for name in one["parts"])
    parts = {name: [one["parts"].get(name, np.full_like(one["reward"], np.nan)) for one in read] for name in names}
    figures = ("reward", "win_rate", "log_ratio", "logp") if scored else ("reward",)
    return Batch(
        iteration=iteration,
        k=read[0]["reward"].shape[1],
        prompts=rows,
        texts=[text for one in read for text in one["texts"]],
        truncated=[value for one in read for value in one["truncated"].ravel().tolist()],
        tokens=[value for one in read for value in one["tokens"].ravel().tolist()],
        parts={name: numbers(values) for name, values in parts.items()},
        **{name: numbers([one[name] for one in read]) for name in figures},
    )


def _read(path: Path, rows: int, *, scored: bool) -> dict[str, Any]:
    """What the page shows of a file's first rows: texts, and figures (n, K)."""
    rollout = rollouts.load_rollout(path)
    k = rollout.shape[1]
    found: dict[str, Any] = {
        "texts": rollout.texts[: rows * k],
        "truncated": ~rollout.finished[:rows],
        "tokens": rollout.tokens.lengths.reshape(-1, k)[:rows],
        "reward": rollouts.load_reward(path, k)[:rows],
        "parts": {name: values[:rows] for name, values in rollouts.load_parts(path, k).items()},
    }
    if scored:
        judged = rollouts.load_scored(path)
        found |= {
            "win_rate": leave_one_out(judged.preference)[:rows],
            "log_ratio": (judged.logp_old - judged.logp_ref)[:rows],
            "logp": judged.logp_old[:rows],
        }
    return found


def numbers(arrays: Sequence[NDArray[Any]]) -> list[float | None]:
    """Figures in a row, to six digits; None for what is no finite number."""
    values = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
