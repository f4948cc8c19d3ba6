"""The store on a file system."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from components.config.errors import StoreError
from components.store.base import REFRESH, Store
from components.store.files import CHUNK, PARTIAL, chunks, keep_lines, replacing
from components.store.records import Blob, FileEntry, Note, Unfinished

STALE = 24 * 3600  # seconds without a write after which an unfinished file belongs to a dead process

ELSEWHERE = "or set METAFLOW_DATASTORE_SYSROOT_LOCAL to a directory elsewhere"
FREE = f"Free space there, {ELSEWHERE}"
ALLOW = f"Allow writing there, {ELSEWHERE}"
REMEDIES = {
    errno.EACCES: ALLOW,
    errno.EPERM: ALLOW,
    errno.EROFS: f"Mount it for writing, {ELSEWHERE}",
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.EFBIG: f"Raise the limit on the size of files (ulimit -f), {ELSEWHERE}",
    errno.EEXIST: f"Remove the file that is in the directory's place, {ELSEWHERE}",
    errno.EISDIR: f"Remove the directory that is in the file's place, {ELSEWHERE}",
    errno.ELOOP: f"Remove the link that leads back to itself, {ELSEWHERE}",
    errno.ENAMETOOLONG: f"Shorten the path, {ELSEWHERE}",
    errno.EIO: f"Check the disk, {ELSEWHERE}",
    errno.ESTALE: f"Mount the file system again, {ELSEWHERE}",
    errno.ENOTDIR: f"Remove the file that is in the directory's place, {ELSEWHERE}",
}


class DiskError(StoreError, OSError):
    """What the file system said, with its `errno`, and how to fix it."""


@contextmanager
def explained(root: str, done: str = "written") -> Iterator[None]:
    """Turns the file system's errors into DiskError: what could not be `done`, where, and how to fix it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        remedy = REMEDIES.get(error.errno or 0, f"Fix that, {ELSEWHERE}")
        told = DiskError(f"{root}: the weights store cannot be {done}: {error.strerror}: {error.filename}. {remedy}.")
        told.errno = error.errno
        raise told from error


class LocalStore(Store):
    """Blobs as read-only files `root/sha256/ab/abcdef…` of a file system that processes may share."""

    def check(self, *, space: int = 0) -> None:
        """Writes a file of 1 MB and reads it back; see `Store.check`."""
        probe = self._scratch / f"{PARTIAL}check-{os.getpid()}"
        content = os.urandom(CHUNK)  # no file system stores that in less
        with explained(self.root):
            self._scratch.mkdir(parents=True, exist_ok=True)
            try:
                with replacing(probe, self._scratch) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                back = probe.read_bytes()
                free = shutil.disk_usage(self.root).free
            finally:
                probe.unlink(missing_ok=True)
        if back != content:
            raise StoreError(f"{self.root}: a file there did not read as it was written. Check the disk, {ELSEWHERE}.")
        if free < space:
            raise StoreError(
                f"{self.root}: the weights store has {free / 1e9:.1f} GB left; the run needs about "
                f"{space / 1e9:.1f} GB. {FREE}."
            )

    def blobs(self) -> Iterator[Blob]:
        """See `Store`."""
        for path in sorted(Path(self.root, "sha256").glob("??/*")):
            blob = self.find(path.name) if re.fullmatch("[0-9a-f]{64}", path.name) else None
            if blob:
                yield blob

    def find(self, sha256: str) -> Blob | None:
        """See `Store`."""
        with explained(self.root, "read"), suppress(FileNotFoundError):
            found = Path(self.locate(sha256)).stat()
            return Blob(sha256, found.st_size, found.st_mtime)
        return None

    def remove(self, sha256: str) -> None:
        """See `Store`."""
        with explained(self.root):
            Path(self.locate(sha256)).unlink(missing_ok=True)

    def unfinished(self) -> Iterator[Unfinished]:
        """See `Store`."""
        for path in self._scratch.glob(f"{PARTIAL}*"):
            with suppress(FileNotFoundError):  # finished or removed by another process
                yield Unfinished(str(path), path.stat().st_mtime)

    def discard(self, unfinished: Unfinished) -> None:
        """See `Store`."""
        with explained(self.root):
            Path(unfinished.where).unlink(missing_ok=True)

    def notes(self) -> Iterator[Note]:
        """Names that begin with a dot are the file system's; see `Store`."""
        with explained(self.root, "read"):
            try:
                names = sorted(os.listdir(self._notes))  # noqa: PTH208, a glob is silent about what it cannot list
            except FileNotFoundError:
                if self._notes.is_symlink():
                    raise
                names = []
        for name in names:
            with explained(self.root, "read"), suppress(FileNotFoundError):
                if not name.startswith("."):
                    # A link's own time: of one that leads nowhere there is no other, and reading it says so.
                    yield Note(name, (self._notes / name).lstat().st_mtime)

    def write_note(self, name: str, text: str) -> None:
        """See `Store`."""
        with explained(self.root):
            for folder in (self._notes, self._scratch):
                folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._notes / name, self._scratch) as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())

    def remove_note(self, name: str) -> None:
        """See `Store`."""
        with explained(self.root):
            (self._notes / name).unlink(missing_ok=True)

    def write_lines(self, name: str, lines: Sequence[str]) -> str:
        """The file grows by what it lacks, so that `tail -f` follows it; see `Store`."""
        path = Path(self.root, "metrics", name)
        with explained(self.root):
            keep_lines(path, lines)
        return str(path)

    def locate(self, sha256: str) -> str:
        """See `Store`."""
        return str(Path(self.root, "sha256", sha256[:2], sha256))

    @property
    def _scratch(self) -> Path:
        return Path(self.root, "tmp")

    @property
    def _notes(self) -> Path:
        return Path(self.root, "notes")

    def _at_hand(self, name: str, entry: FileEntry, cache: Path) -> Path:
        """The blob itself, checked the first time."""
        seen, blob = cache / entry["sha256"], Path(self.locate(entry["sha256"]))
        if not seen.is_symlink():
            for _ in self._blob(name, entry):
                pass
            cache.mkdir(parents=True, exist_ok=True)
            seen.symlink_to(blob)
        return blob

    def _note(self, name: str) -> bytes | None:
        path = self._notes / name
        with explained(self.root, "read"):
            try:
                return b"".join(chunks(path))
            except FileNotFoundError as error:
                if path.is_symlink():
                    raise StoreError(f"{path}: is a link to what is not there. Restore that, or the note.") from error
        return None

    def _read(self, entry: FileEntry) -> Iterator[bytes]:
        with explained(self.root, "read"):
            yield from chunks(Path(self.locate(entry["sha256"])))

    def _write(self, entry: FileEntry, parts: Iterable[bytes]) -> None:
        with explained(self.root):
            self._make(entry, parts)

    def _make(self, entry: FileEntry, parts: Iterable[bytes]) -> None:
        path = Path(self.locate(entry["sha256"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(exist_ok=True)
        for old in self.unfinished():
            if time.time() - old.begun > STALE:
                self.discard(old)
        # Of two processes that store the same bytes at once, the later replaces the blob by an equal one. A
        # hard link would refuse to, but not every file system has links.
        with replacing(path, self._scratch) as file:
            file.writelines(parts)
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())  # before the name exists, or a power cut could leave it on an empty file

    def _keep(self, sha256: str) -> None:
        blob = self.find(sha256)
        if blob and time.time() - blob.used > REFRESH:
            # Another user's file may be read, not touched. One removed this instant is reported by the caller.
            with explained(self.root), suppress(PermissionError, FileNotFoundError):
                os.utime(self.locate(sha256))
