"""Where prompts come from: files by name or pattern and Hugging Face datasets, opened part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.config.errors import PromptError
from components.config.paths import user_path
from components.prompts import files, hub, tables
from components.prompts.config import PromptsConfig
from components.prompts.records import USUAL

FORMATS = "Use a .jsonl, .json (one object per line) or .parquet file, or a Hugging Face dataset"
SHOWN = 3  # names of a source that an error spells out
PATTERN = re.compile(r"[*?\[]")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
NAMED = files.LINES | {".parquet"}  # files that a config names; a directory may hold CSV too
_OTHER_FILES = {".csv", ".tsv", ".txt", ".yaml", ".yml", ".arrow", ".gz", ".zst", ".zip"}


@dataclass(frozen=True)
class Source:
    """Where some prompts are: names, each of a file, of several by a pattern, or of a dataset with its split."""

    names: tuple[str, ...]
    split: str = "train"
    subset: str | None = None
    split_key: str = "prompts.split"  # where the config names it

    def __str__(self) -> str:
        return ", ".join(self.names[:SHOWN]) + (f" and {len(self.names) - SHOWN} more" * (len(self.names) > SHOWN))


@dataclass(frozen=True)
class Part:
    """One file or dataset of a source, and what its records are called; those of lines are bytes."""

    name: str
    unit: str
    records: Iterator[tuple[int, Any]]


def configured(settings: PromptsConfig) -> list[Source]:
    """The sources of training and evaluation prompts; one of both if evaluation prompts are split off.

    Raises PromptError for a subset or a split of files, which have none, and for a path that cannot be looked up.
    """
    train, own_split = _names(settings.train), settings.evaluation_split
    evaluation = _names(settings.evaluation) or (train if own_split else ())
    for key, names in (("train", train), ("evaluation", _names(settings.evaluation))):
        for name in names:
            user_path(name, f"prompts.{key}", PromptError)
    _refuse_unused("prompts.subset", settings.subset, [*train, *evaluation], hub.SAVED_SPLIT, hub.SAVED_SPLITS)
    _refuse_unused("prompts.evaluation_split", own_split, evaluation, hub.SAVED_SPLIT)
    if (split := settings.split) != PromptsConfig().split:  # which stands in every config that was read
        _refuse_unused("prompts.split", split, [*train, *([] if own_split else evaluation)], hub.SAVED_SPLIT)
    sources = [Source(train, settings.split, settings.subset)]
    if evaluation and own_split:
        sources.append(Source(evaluation, own_split, settings.subset, "prompts.evaluation_split"))
    elif evaluation:
        sources.append(Source(evaluation, settings.split, settings.subset))
    return sources


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _refuse_unused(key: str, value: str | None, names: Sequence[str], *marks: str) -> None:
    """Refuses a setting of datasets where all names are those of files, or of directories with one of the marks."""
    paths = [user_path(name, "prompts", PromptError) for name in names]
    without = [files.suffix(path) in NAMED or any((path / mark).exists() for mark in marks) for path in paths]
    if value is not None and all(without):
        what = key.rpartition("_")[2].rpartition(".")[2]
        raise PromptError(
            f"{key}: {value!r} is for a Hugging Face dataset, and {names[0]} has no {what}. Leave it out."
        )


def parts(source: Source, columns: tables.Columns) -> list[Part]:
    """The parts of a source in the order of its names, and of a pattern's files in that of theirs.

    Raises PromptError for what cannot be read, and for a table that lacks the column named.
    """
    opened: list[tables.Table | tuple[str, Path]] = []
    for name in expanded(source.names):
        opened += _open(name, source, columns)
    found = [part for part in opened if isinstance(part, tables.Table)]
    for table in found:
        _require(table, columns.prompt)
    gapped = tables.gapped(found)
    return [
        Part(part.name, "row", part.numbered(gapped))
        if isinstance(part, tables.Table)
        else Part(part[0], "line", _lines(*part))
        for part in opened
    ]


def expanded(names: Sequence[str]) -> list[str]:
    """The names, with the files that a pattern means in its place."""
    found: list[str] = []
    for name in names:
        path = user_path(name, "prompts", PromptError)
        if not PATTERN.search(name) or path.exists():
            found.append(name)
        elif matches := files.matching(path):
            found += matches
        else:
            raise PromptError(f"{name}: there is no such file (looked from {Path.cwd()}). Correct the pattern.")
    same = [str(user_path(name, "prompts", PromptError).resolve()) for name in found]
    if twice := [name for name, path in zip(found, same, strict=True) if same.count(path) > 1]:
        raise PromptError(f"{twice[0]}: is named twice. Name it once.")
    return found


def _open(name: str, source: Source, columns: tables.Columns) -> list[tables.Table | tuple[str, Path]]:
    path = user_path(name, "prompts", PromptError)
    kind = files.suffix(path)
    if name and path.is_dir():
        return _dataset(name, source, columns)
    if kind in NAMED:
        if not path.is_file():
            raise PromptError(f"{name}: there is no such file ({path.absolute()}). Correct the path.")
        return [files.table(name, path, columns) if files.is_table(path) else (name, path)]
    if path.is_file() or path.suffix.lower() in _OTHER_FILES:
        raise PromptError(f"{name}: prompts are not read from this kind of file. {FORMATS}.")
    if not _HUB_NAME.fullmatch(name):  # spares a slow request to the hub for a mistyped path
        raise PromptError(f"{name}: there is no such file or directory. {FORMATS}.")
    return _dataset(name, source, columns)


def _dataset(name: str, source: Source, columns: tables.Columns) -> list[tables.Table | tuple[str, Path]]:
    found = hub.dataset(name, source.split, source.subset, columns, split_key=source.split_key)
    if isinstance(found, tables.Table):
        return [found]
    return [files.table(str(f), f, columns) if files.is_table(f) else (str(f), f) for f in found]


def _lines(name: str, path: Path) -> Iterator[tuple[int, bytes]]:
    # Split at \n alone: text may hold U+2028 and other characters that str.splitlines breaks at.
    for number, line in enumerate(files.read(name, path).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _require(table: tables.Table, column: str | None) -> None:
    """Refuses a table without any column that can be the prompt, before its rows are read."""
    wanted, columns = [column] if column else list(USUAL), table.arrow.column_names
    if not set(wanted) & set(columns):
        raise PromptError(
            f"{table.name}: has no column {' or '.join(map(repr, wanted))}. "
            f"Set prompts.column to one of: {', '.join(columns)}."
        )
