"""Files as the store reads and writes them: in chunks, checked on the way, never half under their own name."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from components.config.errors import StoreError

CHUNK = 1 << 20  # bytes; larger chunks are no faster and cost memory
PARTIAL = ".wind-partial-"  # begins the names of unfinished files, in the store and beside copies from it


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, CHUNK at a time. Raises as `opened`."""
    with opened(path) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def opened(path: Path) -> RawIOBase:
    """A file to read, not buffered.

    Raises StoreError, and does not wait, for a folder, a pipe or what else is no file; OSError for what cannot be read.
    """
    try:
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)  # noqa: SIM115, PTH123
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a socket
            raise _no_file(path) from error
        error.filename = str(path)
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_file(path)
    return file


def _no_file(path: Path) -> StoreError:
    return StoreError(f"{path}: is no file. Restore the file that was there, or remove what is in its place.")


def checked(parts: Iterable[bytes], sha256: str, error: StoreError) -> Iterator[bytes]:
    """Passes `parts` on and, after the last, raises `error` unless their SHA-256 is right."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        yield part
    if digest.hexdigest() != sha256:
        raise error


def begins_with(path: Path, mark: str) -> bool:
    """Whether this is a file with these first characters; a pipe or a device is none, and is not waited for.

    Raises OSError for a file that cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begin = mark.encode()
        return file.read(len(begin)) == begin


@contextmanager
def replacing(target: Path, scratch: Path) -> Iterator[BinaryIO]:
    """A new file that becomes `target` in one step when the block ends, and is removed when it fails.

    An OSError in the block, such as a full disk's, names the file.
    """
    partial = scratch / f"{PARTIAL}{uuid.uuid4().hex}"
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(target)
    except BaseException as error:  # an interrupt, too
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)
        raise


def try_replacing(target: Path) -> None:
    """Makes the folder of `target` if need be, and tries whether `replacing` can make a file there.

    Raises OSError where it cannot: permissions alone do not tell, as of root's on a read-only disk or in /proc.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    probe = target.parent / f"{PARTIAL}check-{os.getpid()}"
    try:
        with replacing(probe, target.parent):
            pass
    finally:
        probe.unlink(missing_ok=True)


def keep_lines(path: Path, lines: Sequence[str]) -> None:
    """Makes a text file hold these lines, in folders that are made if need be.

    A file that holds the begin of them already, be it that its writer was killed within a line, grows by the rest; one
    that holds something else is replaced.
    """
    text = "".join(f"{line}\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    there = b"".join(chunks(path)) if path.exists() else b""
    if text.startswith(there):
        with path.open("ab") as file:
            file.write(text[len(there) :])
    else:
        with replacing(path, path.parent) as file:
            file.write(text)


def check_name(name: str) -> None:
    """Raises StoreError unless `name` is a path inside a directory."""
    if not isinstance(name, str) or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise StoreError(f"{name!r}: is not a path inside a directory. Use one such as 'model/config.json'.")


def target_of(directory: Path, name: str) -> Path:
    """Where the file `name` goes below `directory`; StoreError if a link on the way may lead out."""
    for parent in Path(name).parents:
        if parent.name and (directory / parent).is_symlink():
            raise StoreError(f"{name}: {directory / parent} is a link that may lead out. Remove the link.")
    return directory / name


def files_below(directory: Path) -> Iterator[Path]:
    """Every file below `directory`, but for unfinished ones; StoreError for what is no file."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from files_below(path)
        elif not path.is_file():  # a link to a directory might lead in a circle
            raise StoreError(f"{path}: is neither a file, a directory nor a link to a file. Remove it.")
        elif not path.name.startswith(PARTIAL):  # left by a `get` that was killed
            yield path
