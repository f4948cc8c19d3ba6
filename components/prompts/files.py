"""Files of prompts by their names: of lines or a table, packed with gzip or not."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from components.config.errors import PromptError
from components.prompts import tables

LINES = {".jsonl", ".json"}
GZIP = ".gz"
_MAGIC = b"\x1f\x8b"  # the first bytes of a gzip file
TABLES: dict[str, Callable[[str, bytes, tables.Columns], tables.Table]] = {
    ".parquet": tables.parquet,
    ".csv": tables.csv,
}


def matching(pattern: Path) -> list[str]:
    """Paths that a pattern such as data/**/*.jsonl matches, sorted; none if nothing does."""
    return sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern


def suffix(path: Path) -> str:
    """What a name ends with in lower case, before .gz: `.jsonl` of a.JSONL.gz."""
    return Path(path.name.lower().removesuffix(GZIP)).suffix


def is_lines(path: Path) -> bool:
    """Whether a name is that of a file with a JSON object on each line."""
    return suffix(path) in LINES


def is_table(path: Path) -> bool:
    """Whether a name is that of a file that `table` reads."""
    return suffix(path) in TABLES


def read(name: str, path: Path) -> bytes:
    """A file's bytes, unpacked if it ends in .gz. Raises PromptError that tells it by `name`."""
    try:
        data = path.read_bytes()
        packed = path.name.lower().endswith(GZIP)
        if data.startswith(_MAGIC) and not packed:
            raise PromptError(f"{name}: is packed with gzip. Unpack it, or let its name end in {GZIP}.")
        return gzip.decompress(data) if packed else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PromptError(f"{name}: is not a whole gzip file ({error}). Pack or download it again.") from error
    except OSError as error:
        raise PromptError(f"{name}: cannot be read ({error}). Correct the path or the file's permissions.") from error


def table(name: str, path: Path, columns: tables.Columns) -> tables.Table:
    """A Parquet or CSV file."""
    return TABLES[suffix(path)](name, read(name, path), columns)
