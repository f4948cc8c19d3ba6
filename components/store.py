"""Content-addressed store of files: weights live here, and artifacts hold only manifests of them.

A blob is named by the SHA-256 of its bytes, so equal files are kept once, a stored one never changes, and
every read is checked. `Store` does all that; its subclasses know only where the bytes lie.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

from components.errors import StoreError

CHUNK = 1 << 20  # bytes; larger chunks are no faster and cost memory
STALE = 24 * 3600  # seconds without a write after which an unfinished file belongs to a dead process
PARTIAL = ".wind-partial-"  # begins the names of unfinished files, in the store and beside copies from it


class FileEntry(TypedDict):
    sha256: str  # 64 lower-case hexadecimal digits
    size: int  # bytes


Manifest = dict[str, FileEntry]  # by path below the stored directory, "/" between parts; plain JSON data


@dataclass(frozen=True)
class Store(ABC):
    """Files in, manifests out, and back. Picklable; memory does not grow with the size of files.

    Methods raise StoreError as they say, and OSError when reading or writing fails, e.g. on a full disk.
    """

    root: str  # where the store is; equal roots are the same store

    def put(self, directory: Path) -> Manifest:
        """Stores every file below `directory`; the manifest is sorted by path.

        A link to a file counts as that file. Empty directories, times and modes are not kept. A blob that is
        there is not written again; its size is checked now, its bytes whenever they are read.

        Raises StoreError for no file, for what is not a file, a file that changes meanwhile, a damaged blob.
        """
        if not directory.is_dir():
            raise StoreError(f"{directory}: is not a directory. Give the directory whose files to store.")
        paths = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
        if not paths:
            raise StoreError(f"{directory}: holds no file to store. Save the policy there first.")
        return {name: self._put(paths[name]) for name in sorted(paths)}

    def put_file(self, path: Path, name: str | None = None) -> Manifest:
        """Stores one file as `name`, by default its own. Errors as for `put`."""
        name = path.name if name is None else name
        _check_name(name)
        if not path.is_file():
            raise StoreError(f"{path}: is not a file. Give the file to store.")
        return {name: self._put(path)}

    def get(self, manifest: Manifest, directory: Path) -> Path:
        """Copies the files of `manifest` into `directory`, which is made if need be, and returns it.

        Files of the same names are replaced, others stay. A file appears under its name only when its SHA-256
        was found right; the copies are ordinary, writable and independent of the store.

        Raises StoreError for a missing or damaged blob, a malformed manifest, a path out of `directory`.
        """
        self._check(manifest)
        for name, entry in manifest.items():
            target = _target(directory, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(target, target.parent) as file:
                file.writelines(self._blob(name, entry))
        return directory

    def verify(self, manifest: Manifest) -> None:
        """Reads every blob of `manifest` and raises as `get` does, without writing anything."""
        self._check(manifest)
        for name, entry in manifest.items():
            for _ in self._blob(name, entry):
                pass

    @abstractmethod
    def _locate(self, sha256: str) -> str:
        """Path or address of a blob."""

    @abstractmethod
    def _size(self, sha256: str) -> int | None:
        """Bytes of a blob; None if it is not there."""

    @abstractmethod
    def _read(self, sha256: str) -> Iterator[bytes]:
        """Chunks of a blob that is there."""

    @abstractmethod
    def _write(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Makes a blob appear, whole, once all `chunks` came; leaves nothing if they or the storage fail."""

    def _put(self, path: Path) -> FileEntry:
        # Hashed first, although a new file is then read twice: 600 MB took 1.3 s, a copy hashed on the way
        # 0.8 s. But a file that is stored already took 0.4 s, and nothing was written; and an object store
        # needs the name before the bytes.
        with path.open("rb", buffering=0) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            entry = FileEntry(sha256=sha256, size=file.tell())
        if self._size(sha256) is None:
            changed = f"{path}: changed while it was being stored. Store it when nothing writes to it."
            self._write(sha256, _checked(_chunks(path), sha256, changed))
        self._check_size(str(path), entry)
        return entry

    def _check(self, manifest: Manifest) -> None:
        """Refuses what is malformed, missing or of a wrong size before anything is read."""
        if not isinstance(manifest, dict) or not manifest:
            raise StoreError(f"{manifest!r}: is not a manifest. Use what `put` returned.")
        for name, entry in manifest.items():
            _check_name(name)
            sized = isinstance(entry, dict) and isinstance(entry.get("size"), int)
            if not sized or not re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))):
                raise StoreError(f"{name}: {entry!r} is not an entry of a manifest. Use what `put` returned.")
            self._check_size(name, entry)

    def _check_size(self, name: str, entry: FileEntry) -> None:
        size = self._size(entry["sha256"])
        if size != entry["size"]:
            how = "is missing" if size is None else f"has {size} bytes, not {entry['size']}"
            raise StoreError(self._bad(name, entry, how))

    def _blob(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        damaged = self._bad(name, entry, "is damaged, its SHA-256 is not its name")
        return _checked(self._read(entry["sha256"]), entry["sha256"], damaged)

    def _bad(self, name: str, entry: FileEntry, how: str) -> str:
        mend = "Restore it from a backup, or delete what is left of it and run the step that saved it again"
        return f"{name}: the stored {self._locate(entry['sha256'])} {how}. {mend}."


class LocalStore(Store):
    """Blobs as read-only files `root/sha256/ab/abcdef…` of a file system that processes may share."""

    def _locate(self, sha256: str) -> str:
        return str(Path(self.root, "sha256", sha256[:2], sha256))

    def _size(self, sha256: str) -> int | None:
        path = Path(self._locate(sha256))
        return path.stat().st_size if path.exists() else None

    def _read(self, sha256: str) -> Iterator[bytes]:
        return _chunks(Path(self._locate(sha256)))

    def _write(self, sha256: str, chunks: Iterable[bytes]) -> None:
        path, scratch = Path(self._locate(sha256)), Path(self.root, "tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(exist_ok=True)
        for partial in scratch.glob(f"{PARTIAL}*"):
            with suppress(FileNotFoundError):  # finished or removed by another process
                if time.time() - partial.stat().st_mtime > STALE:
                    partial.unlink()
        # Of two processes that store the same bytes at once, the later replaces the blob by an equal one. A
        # hard link would refuse to, but not every file system has links.
        with _replacing(path, scratch) as file:
            file.writelines(chunks)
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())  # before the name exists, or a power cut could leave it on an empty file


def open_store(root: str) -> Store:
    """The store in directory `root`, which the first `put` makes. Raises StoreError for `s3://…`."""
    scheme, found, _ = root.partition("://")
    if found:
        raise StoreError(f"{root}: {scheme}:// is not supported by this version. Use a local datastore.")
    return LocalStore(str(Path(root).resolve()))  # the same from any working directory


def store_root(datastore_type: str, datastore_root: str) -> str:
    """The store of a Metaflow datastore: `wind_store` beside its root, so that each can be deleted alone.

    `/data/.metaflow` gives `/data/wind_store`, `s3://bucket/team/metaflow` gives `s3://bucket/team/wind_store`;
    a datastore that fills its bucket has nothing beside it, so `s3://bucket` gives `s3://bucket/wind_store`.

    Raises StoreError for a type that is neither `local` nor `s3`, and for an S3 root without a bucket.
    """
    if datastore_type == "local":
        return str(Path(datastore_root).resolve().parent / "wind_store")
    bucket = re.match("s3://[^/]+", datastore_root)
    if datastore_type != "s3" or not bucket:
        raise StoreError(f"{datastore_type} {datastore_root!r} has no store. Use local, or s3://BUCKET.")
    parents = datastore_root[bucket.end() :].rstrip("/").rpartition("/")[0]
    return f"{bucket[0]}{parents}/wind_store"


def _check_name(name: str) -> None:
    if not isinstance(name, str) or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise StoreError(f"{name!r}: is not a path inside a directory. Use one such as 'model/config.json'.")


def _target(directory: Path, name: str) -> Path:
    for parent in Path(name).parents:
        if parent.name and (directory / parent).is_symlink():
            raise StoreError(f"{name}: {directory / parent} is a link that may lead out. Remove the link.")
    return directory / name


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif not path.is_file():  # a link to a directory might lead in a circle
            raise StoreError(f"{path}: is neither a file, a directory nor a link to a file. Remove it.")
        elif not path.name.startswith(PARTIAL):  # left by a `get` that was killed
            yield path


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _checked(chunks: Iterable[bytes], sha256: str, message: str) -> Iterator[bytes]:
    """Passes `chunks` on and, after the last, raises StoreError(message) unless their SHA-256 is right."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise StoreError(message)


@contextmanager
def _replacing(target: Path, scratch: Path) -> Iterator[BinaryIO]:
    """A new file that becomes `target` in one step when the block ends, and is removed when it fails."""
    partial = scratch / f"{PARTIAL}{uuid.uuid4().hex}"
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(target)
    except BaseException:  # an interrupt, too
        partial.unlink(missing_ok=True)
        raise
