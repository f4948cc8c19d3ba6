"""Files for stores, and what lies in a store, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from components.store import Store

# SHA-256 of b"abc" and of nothing, from FIPS 180-4's examples
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def small_files(directory: Path) -> Path:
    """Files in and below the directory, two of them equal, one empty and one of over two chunks."""
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "abc").write_bytes(b"abc")
    (directory / "deep" / "empty").write_bytes(b"")
    (directory / "deep" / "er" / "Ünï code").write_bytes(bytes(range(256)) * 9000)
    (directory / "deep.txt").write_bytes(b"abc")
    return directory


def blob(store: Store, sha256: str) -> Path:
    return Path(store.root, "sha256", sha256[:2], sha256)


def blobs(store: Store) -> list[Path]:
    return [path for path in Path(store.root).rglob("*") if path.is_file()]


def content(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def python(code: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def flip_last_byte(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
