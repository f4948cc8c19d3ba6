"""Prompts: read and checked, held out for evaluation, and dealt out to iterations and shards.

A record holds `prompt` (text) or `messages` (chat turns, the last one the user's), or either in a column that
the config names, and optionally `id`, `answer` and `metadata`. Real datasets have more columns: every other key
joins `metadata`, where a judge finds it. A null counts as absent, because Parquet gives every row every column.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import PromptError
from components.progress import Progress, silent
from components.prompts.records import Turns, read_record, turns
from components.prompts.sources import FORMATS, records
from components.records import Prompt
from components.seeds import generator

SHOWN = 10  # bad records, or shared ids, that one error spells out

logger = logging.getLogger(__name__)


def load(source: str, *, split: str, column: str | None = None, allow_duplicates: bool = False) -> list[Prompt]:
    """Prompts of a JSONL file, a Parquet file, or a Hugging Face dataset, in the source's order.

    Args:
        source: path ending in .jsonl, .json (one object per line) or .parquet; a dataset directory, also one
            made by `save_to_disk`; or the name of a dataset on the hub.
        split: split of a dataset; a file has none.
        column: key of the prompt, text or chat turns; of turns that end with the assistant's answer, that is left out,
            and a line of the log says in how many. Without one, the key is `prompt` or `messages`.
        allow_duplicates: keep prompts that repeat the id or the messages of another; a repeated id gets a
            suffix: `a`, `a-2`, `a-3`.

    Raises:
        PromptError: the source cannot be read, is empty or lacks the column; or lists every record that cannot be
            used, with its line (or row, counted from 1), the reason and the remedy.
    """
    unit, numbered = records(source, split, column)
    prompts: list[Prompt] = []
    answered = 0
    bad: list[str] = []
    seen: dict[Turns | str, str] = {}
    copies: Counter[str] = Counter()
    for number, raw in numbered:
        place = f"{unit} {number}"
        try:
            record = read_record(raw, column)
            prompt = record.prompt
            if not allow_duplicates:
                _refuse_duplicate(prompt, seen)
        except PromptError as reason:
            bad.append(f"{place}: {reason}")
            continue
        while prompt.id in seen:
            copies[prompt.id] += 1
            prompt = replace(prompt, id=f"{prompt.id}-{copies[prompt.id] + 1}")
        seen[prompt.id] = seen[turns(prompt)] = place
        prompts.append(prompt)
        answered += record.answered
    if bad:
        rest = [f"… and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        lines = "\n  ".join([*bad[:SHOWN], *rest])
        raise PromptError(f"{source}: {len(bad)} of {len(bad) + len(prompts)} {unit}s cannot be used:\n  {lines}")
    if not prompts:
        raise PromptError(f"{source}: holds no prompts. {FORMATS} with at least one record.")
    if answered:
        shares = f"{answered:,} of {len(prompts):,}"
        logger.warning("%s: left out the assistant's answer at the end of %s conversations", source, shares)
    return prompts


def save(prompts: Iterable[Prompt], path: Path) -> None:
    """Writes JSONL that `load` reads back. Metadata that JSON cannot hold, such as a date, becomes text."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for prompt in prompts:
            turns = {"prompt": prompt.text} if len(prompt.messages) == 1 else {"messages": prompt.messages}
            record: dict[str, Any] = {"id": prompt.id, **turns}
            if prompt.answer is not None:
                record["answer"] = prompt.answer
            if prompt.metadata:
                record["metadata"] = prompt.metadata
            file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


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


def _refuse_duplicate(prompt: Prompt, seen: dict[Turns | str, str]) -> None:
    for what, key in (("messages", turns(prompt)), ("id", prompt.id)):
        if key in seen:
            raise PromptError(
                f"{what}: the same as in {seen[key]}. Remove one of the two, or set prompts.allow_duplicates."
            )
