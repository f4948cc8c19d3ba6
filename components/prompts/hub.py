"""Prompts that the library `datasets` finds: on the hub, in a directory like those there, or in a saved one."""

from __future__ import annotations

import json
import logging
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.config.errors import PromptError
from components.config.paths import user_path
from components.prompts.files import is_lines, is_table, read
from components.prompts.records import parse
from components.prompts.tables import Columns, Row, Table, refuse_twins, unreadable_cell

if TYPE_CHECKING:
    from datasets import Dataset

SAVED_SPLIT, SAVED_SPLITS = "state.json", "dataset_dict.json"  # what save_to_disk leaves in its directory
_NAMES = {"name", "version", "data_dir", "data_files", "description"}  # of a builder's config; the rest is settings
# What `datasets` raises of a README.md whose metadata is no YAML, or none of a dataset.
_OF_METADATA = (yaml.YAMLError, TypeError, AttributeError, KeyError)
# What it raises of a damaged archive, of a format whose library is not installed, and of the folder / (an IndexError).
_OF_FILES = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ImportError, IndexError)


def dataset(source: str, split: str, subset: str | None, columns: Columns, *, split_key: str) -> Table | list[Path]:
    """A split of a dataset; or its files, if they are read better one by one than by `datasets`.

    `split_key` is where the config names the split.

    Raises PromptError that names the subsets or splits there are.
    """
    import datasets

    path = user_path(source, "prompts", PromptError)
    where = str(path) if path.is_dir() else source
    told = _Told()
    saved = [name for name in (SAVED_SPLITS, SAVED_SPLIT) if (path / name).exists()]
    data: Any
    try:
        if saved:
            data = datasets.load_from_disk(where)
        else:
            if path.is_dir() and (found := _plain_files(where, subset, split)):
                return found
            with told:
                data = datasets.load_dataset(where, subset, split=split)
    except PromptError:
        raise
    except (*_OF_METADATA, *_OF_FILES, OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, _OF_METADATA) and saved:
            raise PromptError(
                f"{path / saved[0]}: it and the files beside it do not describe a saved dataset ({error}). Save it "
                "again with save_to_disk."
            ) from error
        if isinstance(error, _OF_METADATA):
            card = path / "README.md" if path.is_dir() else f"README.md of {source}"
            raise PromptError(
                f"{card}: its first part, between two lines `---`, does not describe a dataset ({error}). Correct it."
            ) from error
        if isinstance(error, ValueError):
            _refuse_subset(source, where, subset)
        raise PromptError(
            f"{source}: split {split!r} of this dataset cannot be loaded ({_cause(error, told)}). Correct its name or "
            f"{split_key}; a dataset on the hub also needs the network and, where it is gated, a login."
        ) from error
    if isinstance(data, dict) and split not in data:
        raise PromptError(f"{source}: has no split {split!r}. Set {split_key} to one of: {', '.join(data)}.")
    return _table(source, data[split] if isinstance(data, dict) else data, columns.leave_out)


def _plain_files(where: str, subset: str | None, split: str) -> list[Path]:
    """The files of a split, if all are JSON lines, CSV or several of plain Parquet, and nothing else is set about them.

    Read one by one, their errors have a file and a line, text that looks like a date stays text, and rows may differ.
    """
    import datasets

    if any(info.features for info in datasets.info.DatasetInfosDict.from_directory(where).values()):
        return []
    builder = datasets.load_dataset_builder(where, subset)
    config = builder.config
    usual = type(config)()
    settings = {field.name for field in fields(config)} - _NAMES
    if builder.name not in ("json", "csv", "parquet") or any(
        getattr(config, key) != getattr(usual, key) for key in settings
    ):
        return []
    there = {str(name): [Path(file) for file in listed] for name, listed in (config.data_files or {}).items()}
    names = [name.strip() for name in split.split("+")]
    if not there.keys() >= set(names) or len(set(names)) < len(names):
        return []
    found = [file for name in names for file in there[name]]
    if builder.name == "parquet" and (True in map(_has_features, found) or len(found) == 1):
        return []
    return found if all(file.is_file() and (is_table(file) or _of_lines(file)) for file in found) else []


def _has_features(file: Path) -> bool:
    """Whether `datasets` wrote a Parquet file, which then tells it how to decode columns.

    Raises PromptError for one that has a column twice.
    """
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file)
    except (OSError, pyarrow.ArrowException):
        return False  # not readable, as is told when it is read
    refuse_twins(str(file), schema)
    return b"huggingface" in (schema.metadata or {})


def _of_lines(file: Path) -> bool:
    """Whether each line is a record; a .json file may also be one list, or one object over several lines."""
    if not is_lines(file) or ".jsonl" in file.name.lower():
        return is_lines(file)
    data = read(str(file), file).strip()
    if data.startswith(b"["):
        try:
            parse(data)  # of a bad one `datasets` does not tell the file
        except PromptError as error:
            raise PromptError(f"{file}: {error}") from error
        return False
    try:
        json.loads(data)
    except ValueError:
        return True
    return b"\n" not in data


def _refuse_subset(source: str, where: str, subset: str | None) -> None:
    """Raises PromptError if the dataset lacks the subset, or has several and none is named."""
    import datasets

    try:
        names = datasets.get_dataset_config_names(where)
    except PromptError:
        raise
    except (*_OF_METADATA, *_OF_FILES, OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError):
        return  # then the subset is not what is wrong
    if subset is None and len(names) > 1:
        raise PromptError(f"{source}: has several subsets. Set prompts.subset to one of: {', '.join(names)}.")
    if subset is not None and names == ["default"]:
        raise PromptError(f"{source}: has no subset {subset!r}, nor any other. Leave prompts.subset out.")
    if subset is not None and subset not in names:
        raise PromptError(f"{source}: has no subset {subset!r}. Set prompts.subset to one of: {', '.join(names)}.")


class _Told(logging.Handler):
    """What `datasets` logs of errors while it loads: there alone it names the file that it cannot read."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("datasets").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("datasets").removeHandler(self)


def _cause(error: Exception, told: _Told) -> str:
    """What went wrong; `datasets` says of some errors only that there was one."""
    import datasets

    if not isinstance(error, datasets.exceptions.DatasetGenerationError):
        return str(error)
    return ": ".join([str(error), *(told.messages or [str(error.__cause__)])])


def _table(source: str, data: Dataset, leave_out: Collection[str]) -> Table:
    """The columns that count, as Python's values whatever format they were saved with; pictures and sounds as bytes."""
    import datasets

    data = data.with_format(None).remove_columns([name for name in data.column_names if name in leave_out])
    for name, feature in data.features.items():
        if getattr(feature, "decode", False) and not isinstance(feature, datasets.features.Json):
            data = data.cast_column(name, replace(feature, decode=False))
    return Table(source, data.data.table, lambda: _rows(source, data))


def _rows(source: str, data: Dataset) -> Iterator[Row]:
    number = 0
    try:
        for row in data:
            yield row
            number += 1
    except (ValueError, OverflowError) as error:
        raise _unreadable(source, number, data, error) from error


def _unreadable(source: str, number: int, data: Dataset, error: Exception) -> PromptError:
    """What to say of the first row from `number` on with a value that Python cannot hold."""
    names: Sequence[str] = data.column_names
    for row in range(number, len(data)):
        for name in names:
            try:
                data.select_columns([name])[row]
            except (ValueError, OverflowError) as reason:
                return unreadable_cell(source, row + 1, name, reason)
    return PromptError(f"{source}: cannot be read ({error}). Save it again.")
