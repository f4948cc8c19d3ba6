"""Prompts: read and checked, held out for evaluation, and dealt out to iterations and shards.

A record holds `prompt` or `messages`, text or chat turns of which the last is the user's, or either in a column that
the config names, and optionally `id`, `answer` and `metadata`. Real datasets have more columns: every other key
joins `metadata`, where a judge finds it. A null counts as absent, because Parquet gives every row every column.

A judge sees the same values in every step: those that JSON gives back, in which prompts are kept. What JSON has no type
for becomes text once, when it is read, or is refused; see `plain`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.config.errors import PromptError
from components.data.records import Prompt
from components.data.seeds import generator
from components.prompts import sources
from components.prompts.gathering import SHOWN, Gathering
from components.prompts.plain import plain
from components.prompts.records import Turns, turns
from components.prompts.sources import Source, configured
from components.prompts.tables import Columns
from components.runtime.progress import Progress, silent

__all__ = [
    "Columns",
    "Source",
    "choose",
    "configured",
    "drop_longer",
    "into_shards",
    "load",
    "load_source",
    "refuse_overlap",
    "save",
    "split_held_out",
]

logger = logging.getLogger(__name__)


def load(
    source: str | Sequence[str],
    *,
    split: str,
    subset: str | None = None,
    column: str | None = None,
    leave_out: Collection[str] = (),
    allow_duplicates: bool = False,
) -> list[Prompt]:
    """Prompts of files and Hugging Face datasets, in the order of the source.

    Args:
        source: one name or several: a path ending in .jsonl, .json (one object per line) or .parquet, or one of these
            and .gz; a pattern of paths, such as data/*.jsonl; a dataset directory, also one made by `save_to_disk`;
            or the name of a dataset on the hub.
        split: split of a dataset; a file has none.
        subset: of a dataset that has several, such as `main` of openai/gsm8k; a file has none.
        column: key of the prompt, text or chat turns; of turns that end with the assistant's answer, that is left out,
            and a line of the log says in how many. Without one, the key is `prompt` or `messages`.
        leave_out: keys that are not read.
        allow_duplicates: keep prompts that repeat the id or the messages of another; a repeated id gets a
            suffix: `a`, `a-2`, `a-3`.

    Raises:
        PromptError: the source cannot be read, is empty or lacks the column; or lists every record that cannot be
            used, with its file if there are several, its line (or row, counted from 1), the reason and the remedy.
    """
    names = (source,) if isinstance(source, str) else tuple(source)
    return load_source(Source(names, split, subset), Columns(column, leave_out), allow_duplicates=allow_duplicates)


def load_source(source: Source, columns: Columns, *, allow_duplicates: bool) -> list[Prompt]:
    """As `load`."""
    parts = sources.parts(source, columns)
    gathering = Gathering(columns, allow_duplicates)
    for part in parts:
        file = f"{part.name}, " if len(parts) > 1 or part.name not in source.names else ""
        for number, raw in part.records:
            gathering.add(raw, f"{file}{part.unit} {number}")
    units = {part.unit for part in parts}
    gathering.refuse_bad(str(source), units.pop() if len(units) == 1 else "record")
    prompts, answered = gathering.prompts, gathering.answered
    if not prompts:
        raise PromptError(f"{source}: holds no prompts. {sources.FORMATS} with at least one record.")
    if answered:
        shares = f"{answered:,} of {len(prompts):,}"
        logger.warning("%s: left out the assistant's answer at the end of %s conversations", source, shares)
    return prompts


def save(prompts: Iterable[Prompt], path: Path) -> None:
    """Writes JSONL that `load` reads back: the same prompts, if their metadata is as `load` gives it.

    Raises PromptError for metadata that JSON cannot hold; a date, say, becomes text, as in `plain`.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for prompt in prompts:
            turns = {"prompt": prompt.text} if len(prompt.messages) == 1 else {"messages": prompt.messages}
            record: dict[str, Any] = {"id": prompt.id, **turns}
            if prompt.answer is not None:
                record["answer"] = prompt.answer
            if prompt.metadata:
                record["metadata"] = plain(prompt.metadata, "metadata")
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def drop_longer(
    prompts: Sequence[Prompt],
    max_tokens: int,
    *,
    count_tokens: Callable[[Prompt], int],
    source: str,
    progress: Progress = silent,
) -> list[Prompt]:
    """The prompts of at most `max_tokens` tokens, in their order; a line of the log says how many of the source's go.

    Raises:
        PromptError: all are longer.
    """
    lengths = []
    for prompt in prompts:
        lengths.append(count_tokens(prompt))
        progress(len(lengths), len(prompts))
    kept = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= max_tokens]
    if not kept:
        raise PromptError(
            f"prompts.drop_longer: all {len(prompts):,} prompts of {source} are longer than {max_tokens:,} tokens; "
            f"the shortest has {min(lengths):,}. Raise it, or leave it out."
        )
    shares = f"{len(prompts) - len(kept):,} of {len(prompts):,}"
    logger.warning("%s: dropped %s prompts longer than %s tokens", source, shares, f"{max_tokens:,}")
    return kept


def split_held_out(prompts: Sequence[Prompt], held_out: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Training and evaluation prompts, both in the order of `prompts`.

    Prompts drawn for evaluation have distinct messages, and their duplicates, if any, are left out of both.

    Raises:
        PromptError: fewer than `held_out + 1` distinct prompts.
    """
    distinct: dict[Turns, Prompt] = {}
    for prompt in prompts:
        distinct.setdefault(turns(prompt), prompt)
    if held_out >= len(distinct):
        raise PromptError(
            f"prompts.held_out: {held_out} of {len(distinct)} distinct prompts leaves none to train on. "
            "Lower prompts.held_out, add prompts, or name a file in prompts.evaluation."
        )
    drawn = np.zeros(len(distinct), dtype=bool)
    drawn[generator(seed, "held out").permutation(len(distinct))[:held_out]] = True
    evaluation = {turns: prompt for (turns, prompt), out in zip(distinct.items(), drawn, strict=True) if out}
    return [prompt for prompt in prompts if turns(prompt) not in evaluation], list(evaluation.values())


def refuse_overlap(train: Iterable[Prompt], evaluation: Iterable[Prompt]) -> None:
    """Raises PromptError when an evaluation prompt has the messages of a training prompt."""
    trained = {turns(prompt) for prompt in train}
    shared = [prompt.id for prompt in evaluation if turns(prompt) in trained]
    if shared:
        names = ", ".join(repr(name) for name in shared[:SHOWN]) + (", …" if len(shared) > SHOWN else "")
        raise PromptError(
            f"prompts.evaluation: {len(shared)} evaluation prompts are also training prompts: {names}. "
            "Remove them from prompts.train or from prompts.evaluation."
        )


def choose(prompts: Sequence[Prompt], *, per_iteration: int, iteration: int, seed: int) -> list[Prompt]:
    """The prompts of one iteration, counted from 1; depends on no other iteration having run.

    Iterations deal out a shuffle of all prompts, then another. The one that needs the end of one shuffle and
    the start of the next gets no prompt twice: those it has from the old shuffle come later in the new one.

    Raises:
        PromptError: `per_iteration` exceeds the number of prompts.
    """
    count = len(prompts)
    if per_iteration > count:
        raise PromptError(
            f"prompts.per_iteration: {per_iteration} exceeds the {count} training prompts. "
            f"Use {count} or fewer, or add prompts."
        )
    ahead = np.empty(0, dtype=np.int64)
    shuffles = 0
    for _ in range(iteration):
        ahead = ahead[per_iteration:] if shuffles else ahead
        if len(ahead) < per_iteration:
            order = generator(seed, "prompts", shuffles).permutation(count)
            fresh = order[~np.isin(order, ahead)][: per_iteration - len(ahead)]
            ahead = np.concatenate([ahead, fresh, order[~np.isin(order, fresh)]])
            shuffles += 1
    return [prompts[index] for index in ahead[:per_iteration]]


def into_shards(prompts: Sequence[Prompt], shards: int) -> list[list[Prompt]]:
    """Contiguous parts whose sizes differ by at most one, the larger ones first.

    Raises:
        PromptError: more shards than prompts.
    """
    if shards > len(prompts):
        raise PromptError(f"prompts.shards: {shards} shards cannot share {len(prompts)} prompts. Lower prompts.shards.")
    return [[prompts[index] for index in part] for part in np.array_split(np.arange(len(prompts)), shards)]
