"""Where prompts come from: the records of a JSONL file, a Parquet file or a Hugging Face dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.errors import PromptError
from components.prompts.records import USUAL

FORMATS = "Use a .jsonl, .json (one object per line) or .parquet file, or a Hugging Face dataset"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_OTHER_FILES = {".csv", ".tsv", ".txt", ".yaml", ".yml", ".arrow", ".gz", ".zst", ".zip"}


def records(source: str, split: str, column: str | None = None) -> tuple[str, Iterator[tuple[int, Any]]]:
    """What a record is called, and the records with their numbers from 1; those of JSONL still as bytes.

    Raises PromptError for a source that cannot be read, and for one with columns that lacks the one named.
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if source and path.is_dir():
        return "row", enumerate(_dataset(source, path, split, column), start=1)
    if suffix in {".jsonl", ".json", ".parquet"}:
        if not path.is_file():
            raise PromptError(f"{source}: there is no such file ({path.absolute()}). Correct the path.")
        return ("row", enumerate(_parquet(source, path, column), start=1)) if suffix == ".parquet" else _jsonl(path)
    if path.is_file() or suffix in _OTHER_FILES:
        raise PromptError(f"{source}: prompts are not read from this kind of file. {FORMATS}.")
    if not _HUB_NAME.fullmatch(source):  # spares a slow request to the hub for a mistyped path
        raise PromptError(f"{source}: there is no such file or directory. {FORMATS}.")
    return "row", enumerate(_dataset(source, path, split, column), start=1)


def _jsonl(path: Path) -> tuple[str, Iterator[tuple[int, bytes]]]:
    # Split at \n alone: text may hold U+2028 and other characters that str.splitlines breaks at.
    lines = path.read_bytes().split(b"\n")
    return "line", ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _parquet(source: str, path: Path, column: str | None) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _require(source, column, file.schema_arrow.names)
        table = file.read()
    except pyarrow.ArrowException as error:
        raise PromptError(f"{source}: is not a readable Parquet file ({error}). Write it again.") from error
    return (row for batch in table.to_batches() for row in batch.to_pylist())


def _dataset(source: str, path: Path, split: str, column: str | None) -> Iterable[dict[str, Any]]:
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
    data = data[split] if isinstance(data, dict) else data
    _require(source, column, data.column_names)
    rows: Iterable[dict[str, Any]] = data
    return rows


def _require(source: str, column: str | None, columns: Sequence[str]) -> None:
    """Refuses a table without any column that can be the prompt, before its rows are read."""
    wanted = [column] if column else list(USUAL)
    if not set(wanted) & set(columns):
        raise PromptError(
            f"{source}: has no column {' or '.join(map(repr, wanted))}. "
            f"Set prompts.column to one of: {', '.join(columns)}."
        )
