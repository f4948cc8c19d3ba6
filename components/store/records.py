"""What a store holds: files and their manifests, what writers have not ended, notes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict


class FileEntry(TypedDict):
    sha256: str  # 64 lower-case hexadecimal digits
    size: int  # bytes


Manifest = dict[str, FileEntry]  # by path below the stored directory, "/" between parts; plain JSON data


@dataclass(frozen=True)
class Blob:
    """A stored file."""

    sha256: str
    size: int  # bytes
    used: float  # when a `put` last stored it or found it stored, to within REFRESH; seconds since the epoch


@dataclass(frozen=True)
class Unfinished:
    """What a writer has begun and not ended: it still writes, or it died. No reader takes it for a blob."""

    where: str  # path or address
    begun: float  # seconds since the epoch; for a file, when it last grew
    upload: str = ""  # the object store's name for it


@dataclass(frozen=True)
class Note:
    """A small text that may change."""

    name: str
    written: float  # seconds since the epoch


def is_entry(value: object) -> bool:
    """Whether `value` is an entry of a manifest."""
    if not isinstance(value, dict) or not isinstance(value.get("size"), int):
        return False
    return bool(re.fullmatch("[0-9a-f]{64}", str(value.get("sha256"))))
