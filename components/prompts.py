"""Prompts: read and checked, held out for evaluation, and dealt out to iterations and shards.

A record holds `prompt` (text) or `messages` (chat turns, the last one the user's), and optionally `id`,
`answer` and `metadata`. Real datasets have more columns: every other key joins `metadata`, where a judge
finds it. A null counts as absent, because Parquet gives every row every column.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import PromptError
from components.prompt_records import Turns, read_record, turns
from components.records import Prompt
from components.seeds import generator

SHOWN = 10  # bad records, or shared ids, that one error spells out
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_OTHER_FILES = {".csv", ".tsv", ".txt", ".yaml", ".yml", ".arrow", ".gz", ".zst", ".zip"}
_FORMATS = "Use a .jsonl, .json (one object per line) or .parquet file, or a Hugging Face dataset"


def load(source: str, *, split: str, allow_duplicates: bool = False) -> list[Prompt]:
    """Prompts of a JSONL file, a Parquet file, or a Hugging Face dataset, in the source's order.

    Args:
        source: path ending in .jsonl, .json (one object per line) or .parquet; a dataset directory, also one
            made by `save_to_disk`; or the name of a dataset on the hub.
        split: split of a dataset; a file has none.
        allow_duplicates: keep prompts that repeat the id or the messages of another; a repeated id gets a
            suffix: `a`, `a-2`, `a-3`.

    Raises:
        PromptError: the source cannot be read or is empty, or lists every record that cannot be used, with
            its line (or row, counted from 1), the reason and the remedy.
    """
    unit, records = _records(source, split)
    prompts: list[Prompt] = []
    bad: list[str] = []
    seen: dict[Turns | str, str] = {}
    copies: Counter[str] = Counter()
    for number, raw in records:
        place = f"{unit} {number}"
        try:
            prompt = read_record(raw)
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
    if bad:
        rest = [f"… and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        lines = "\n  ".join([*bad[:SHOWN], *rest])
        raise PromptError(f"{source}: {len(bad)} of {len(bad) + len(prompts)} {unit}s cannot be used:\n  {lines}")
    if not prompts:
        raise PromptError(f"{source}: holds no prompts. {_FORMATS} with at least one record.")
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


def _records(source: str, split: str) -> tuple[str, Iterator[tuple[int, Any]]]:
    """What a record is called, and the records with their numbers; those of JSONL still as bytes."""
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if source and path.is_dir():
        return "row", enumerate(_dataset(source, path, split), start=1)
    if suffix in {".jsonl", ".json", ".parquet"}:
        if not path.is_file():
            raise PromptError(f"{source}: there is no such file ({path.absolute()}). Correct the path.")
        return ("row", enumerate(_parquet(source, path), start=1)) if suffix == ".parquet" else _jsonl(path)
    if path.is_file() or suffix in _OTHER_FILES:
        raise PromptError(f"{source}: prompts are not read from this kind of file. {_FORMATS}.")
    if not _HUB_NAME.fullmatch(source):  # spares a slow request to the hub for a mistyped path
        raise PromptError(f"{source}: there is no such file or directory. {_FORMATS}.")
    return "row", enumerate(_dataset(source, path, split), start=1)


def _jsonl(path: Path) -> tuple[str, Iterator[tuple[int, bytes]]]:
    # Split at \n alone: text may hold U+2028 and other characters that str.splitlines breaks at.
    lines = path.read_bytes().split(b"\n")
    return "line", ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _parquet(source: str, path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as error:
        raise PromptError(f"{source}: is not a readable Parquet file ({error}). Write it again.") from error
    return (row for batch in table.to_batches() for row in batch.to_pylist())


def _dataset(source: str, path: Path, split: str) -> Iterable[dict[str, Any]]:
    import datasets

    saved = (path / "state.json").exists() or (path / "dataset_dict.json").exists()
    data: Any
    try:
        if saved:
            data = datasets.load_from_disk(str(path))
        else:
            data = datasets.load_dataset(str(path) if path.is_dir() else source, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise PromptError(
            f"{source}: split {split!r} of this dataset cannot be loaded ({error}). Correct its name or "
            "prompts.split; a dataset on the hub also needs the network and, where it is gated, a login."
        ) from error
    if isinstance(data, dict) and split not in data:
        raise PromptError(f"{source}: has no split {split!r}. Set prompts.split to one of: {', '.join(data)}.")
    rows: Iterable[dict[str, Any]] = data[split] if isinstance(data, dict) else data
    return rows


def _refuse_duplicate(prompt: Prompt, seen: dict[Turns | str, str]) -> None:
    for what, key in (("messages", turns(prompt)), ("id", prompt.id)):
        if key in seen:
            raise PromptError(
                f"{what}: the same as in {seen[key]}. Remove one of the two, or set prompts.allow_duplicates."
            )
