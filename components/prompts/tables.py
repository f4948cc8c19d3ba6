"""Tables of prompts: Parquet and CSV files and what `datasets` loads, as rows of Python values."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from csv import Error as CsvError
from csv import reader
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from components.config.errors import PromptError
from components.prompts.plain import ESCAPED

if TYPE_CHECKING:
    import pyarrow

WHOLE = 2**53  # up to here a double holds every whole number
TEXT = {"prompt", "answer", "id"}  # columns of a CSV file that stay as written: an answer of 1.50 is not 1.5
_NO_NUMBER = r"-?0\d+|-?\d{19,}"  # digits that a number would not give back
Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Which columns of a source count."""

    prompt: str | None = None  # that holds the prompt; else `prompt` or `messages`
    leave_out: Collection[str] = ()


@dataclass(frozen=True)
class Table:
    """A table whose values become Python's row by row; `arrow` tells their types."""

    name: str
    arrow: pyarrow.Table
    rows: Callable[[], Iterator[Row]]

    def numbered(self, gapped: Collection[str]) -> Iterator[tuple[int, Row]]:
        """The rows with their numbers from 1; the columns `gapped` hold whole numbers."""
        for number, row in enumerate(self.rows(), start=1):
            for name in gapped & row.keys():
                row[name] = None if row[name] is None else int(row[name])
            yield number, row


def gapped(tables: Sequence[Table]) -> set[str]:
    """Columns of doubles in some table that hold nulls and otherwise whole numbers, over all tables.

    Pandas has no whole number beside a missing one: it writes 42 and null as 42.0 and null.
    """
    names = {name for table in tables for name in table.arrow.column_names}
    return {name for name in names if _gapped([t.arrow[name] for t in tables if name in t.arrow.column_names])}


def _gapped(columns: Sequence[pyarrow.ChunkedArray]) -> bool:
    import pyarrow

    types = pyarrow.types
    floating = [column for column in columns if types.is_floating(column.type)]
    other = [column for column in columns if not types.is_floating(column.type) and not types.is_null(column.type)]
    return (
        bool(floating)
        and any(column.null_count for column in columns)
        and all(types.is_integer(column.type) for column in other)
        and all(map(_whole, floating))
    )


def _whole(column: pyarrow.ChunkedArray) -> bool:
    import pyarrow
    from pyarrow import compute

    values = column.cast(pyarrow.float64()).drop_null()
    whole = compute.and_(compute.equal(compute.floor(values), values), compute.less_equal(compute.abs(values), WHOLE))
    return bool(compute.all(whole, min_count=0).as_py())


def parquet(name: str, data: bytes, columns: Columns) -> Table:
    """A Parquet file, given by its bytes, without some columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        refuse_twins(name, file.schema_arrow)
        kept = [column for column in file.schema_arrow.names if column not in columns.leave_out]
        table = file.read(columns=kept).select(kept)
    except (pyarrow.ArrowException, OSError) as error:
        raise PromptError(f"{name}: is not a readable Parquet file ({error}). Write it again.") from error
    return of_arrow(name, table)


def csv(name: str, data: bytes, columns: Columns) -> Table:
    """A CSV file with a line of column names, given by its bytes, without some columns. Empty fields are nulls.

    A column of numbers holds numbers, unless digits would be lost or it has a meaning: the prompt and `TEXT`.
    """
    import pandas as pd
    import pyarrow

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(
            f"{name}: line {line}: is not UTF-8 text ({error}){_undecodable(data)}. Save the file as UTF-8."
        ) from error
    how: dict[str, Any] = {"index_col": False, "keep_default_na": False, "na_values": [""]}
    try:
        header = pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype=str, keep_default_na=False)
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # fields that it would drop
            written = pd.read_csv(io.StringIO(text), dtype="string", **how)
            frame = pd.read_csv(io.StringIO(text), dtype_backend="numpy_nullable", **how)
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        raise PromptError(f"{name}: is not a readable CSV file ({error}). Correct it.") from error
    _refuse_twice(name, header.iloc[0])
    for column in written:
        if column in {*TEXT, columns.prompt} or written[column].str.fullmatch(_NO_NUMBER).any():
            frame[column] = written[column]
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    return of_arrow(name, table.drop_columns([column for column in table.column_names if column in columns.leave_out]))


def _undecodable(data: bytes) -> str:
    """Which column of a CSV file holds the first bytes that are not UTF-8."""
    rows = reader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=""))
    header = next(rows, [])
    found = (column for row in rows for column, value in zip(header, row, strict=False) if ESCAPED.search(value))
    try:
        column = next(found, "")
    except CsvError:  # a field too large for this reader
        return ""
    return f", in `{column}`" if column and not ESCAPED.search(column) else ""


def of_arrow(name: str, table: pyarrow.Table) -> Table:
    """An Arrow table in memory."""
    return Table(name, table, lambda: _rows(name, table))


def _rows(name: str, table: pyarrow.Table) -> Iterator[Row]:
    import pyarrow

    # Maps become mappings, of which equal keys are refused; where there are none, this costs three times the time.
    strict: Literal["strict"] | None = "strict" if any("map<" in str(kind) for kind in table.schema.types) else None
    number = 0
    for batch in table.to_batches():
        try:
            rows = batch.to_pylist(maps_as_pydicts=strict)
        except (ValueError, KeyError, OverflowError, pyarrow.ArrowException) as error:
            raise _unreadable(name, number, batch, error) from error
        yield from rows
        number += len(rows)


def _unreadable(name: str, before: int, batch: pyarrow.RecordBatch, error: Exception) -> PromptError:
    """What to say of a batch, `before` rows after the first, with a value that Python cannot hold."""
    import pyarrow

    for row in range(len(batch)):
        for column in batch.column_names:
            try:
                batch.column(column)[row].as_py(maps_as_pydicts="strict")
            except (ValueError, KeyError, OverflowError, pyarrow.ArrowException) as reason:
                return unreadable_cell(name, before + row + 1, column, reason)
    return PromptError(f"{name}: cannot be read ({error}). Write it again.")


def unreadable_cell(name: str, row: int, column: str, error: Exception) -> PromptError:
    """What to say of a value that Python cannot hold."""
    what = "is not UTF-8 text" if isinstance(error, UnicodeError) else "cannot be read"
    return PromptError(
        f"{name}: row {row}: {column}: {what} ({error}). Correct it, or let prompts.leave_out leave `{column}` out."
    )


def refuse_twins(name: str, fields: Iterable[pyarrow.Field], above: str = "") -> None:
    """Refuses columns, or fields of one column, that share a name: rows would keep the last of them."""
    import pyarrow

    fields = list(fields)
    _refuse_twice(name, [above + field.name for field in fields])
    for field in fields:
        kind = field.type
        while pyarrow.types.is_nested(kind) and not pyarrow.types.is_struct(kind) and hasattr(kind, "value_type"):
            kind = kind.value_type
        if pyarrow.types.is_struct(kind):
            refuse_twins(name, kind.fields, f"{above}{field.name}.")


def _refuse_twice(name: str, columns: Iterable[str]) -> None:
    found = list(columns)
    if twice := [column for column in found if column and found.count(column) > 1]:
        raise PromptError(f"{name}: has the column {twice[0]!r} twice. Rename or remove one of the two.")
