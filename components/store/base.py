"""What every store does, wherever its bytes lie."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.config.errors import BlobError, StoreError
from components.store.files import CHUNK, check_name, checked, chunks, files_below, replacing, target_of
from components.store.records import Blob, FileEntry, Manifest, Note, Unfinished, is_entry

REFRESH = 3600  # seconds after which a `put` that finds its blob stored notes that it is in use


@dataclass(frozen=True)
class Store(ABC):
    """Files in, manifests out, and back. Picklable; memory does not grow with the size of files.

    Beside files it holds notes: where unfinished training stands, and what finished runs ended with.

    Methods raise StoreError as they say and when the storage does not answer or refuses, e.g. on a full disk; OSError
    when reading or writing a file outside of the store fails.
    """

    root: str  # where the store is; equal roots are the same store

    def put(self, directory: Path, *, check: bool = False) -> Manifest:
        """Stores every file below `directory`; the manifest is sorted by path.

        A link to a file counts as that file. Empty directories, times and modes are not kept. A blob that is
        there is not written again; its size is checked now, its bytes whenever they are read. With `check` that
        is now, and a damaged blob is replaced.

        Raises StoreError for no file, for what is not a file, a file that changes meanwhile, a damaged blob.
        """
        if not directory.is_dir():
            raise StoreError(f"{directory}: is not a directory. Give the directory whose files to store.")
        paths = {path.relative_to(directory).as_posix(): path for path in files_below(directory)}
        if not paths:
            raise StoreError(f"{directory}: holds no file to store. Save the policy there first.")
        return {name: self._put(paths[name], check) for name in sorted(paths)}

    def put_file(self, path: Path, name: str | None = None, *, check: bool = False) -> Manifest:
        """Stores one file as `name`, by default its own; `check` and errors as for `put`."""
        name = path.name if name is None else name
        check_name(name)
        if not path.is_file():
            raise StoreError(f"{path}: is not a file. Give the file to store.")
        return {name: self._put(path, check)}

    def get(self, manifest: Manifest, directory: Path) -> Path:
        """Copies the files of `manifest` into `directory`, which is made if need be, and returns it.

        Files of the same names are replaced, others stay. A file appears under its name only when its SHA-256
        was found right; the copies are ordinary, writable and independent of the store.

        Raises BlobError for a missing or damaged blob, StoreError for a malformed manifest or a path out of
        `directory`.
        """
        self.require(manifest)
        for name, entry in manifest.items():
            self._copy(name, entry, _parented(target_of(directory, name)))
        return directory

    def view(self, manifest: Manifest, directory: Path, cache: Path) -> Path:
        """Shows the files of `manifest` in the new or empty `directory`, only to be read, and returns it.

        Files of over CHUNK bytes are links, to the store's own or to a copy in the folder `cache`, which one reader
        keeps: there each is checked, and brought once. Smaller ones are copies. Raises as `get` does.
        """
        self.require(manifest)
        for name, entry in manifest.items():
            target = _parented(target_of(directory, name))
            if entry["size"] <= CHUNK:
                self._copy(name, entry, target)
            else:
                target.symlink_to(self._at_hand(name, entry, cache))
        return directory

    def verify(self, manifest: Manifest) -> None:
        """Reads every blob of `manifest` and raises as `get` does, without writing anything."""
        self.require(manifest)
        for name, entry in manifest.items():
            for _ in self._blob(name, entry):
                pass

    @abstractmethod
    def check(self, *, space: int = 0) -> None:
        """Writes a small file and reads it back; raises StoreError, saying how to fix it, if that cannot be done.

        Args:
            space: bytes that must be free, where the storage can tell.
        """

    @abstractmethod
    def blobs(self) -> Iterator[Blob]:
        """Every blob, by SHA-256; none if the store has not been made yet."""

    @abstractmethod
    def find(self, sha256: str) -> Blob | None:
        """A blob; None if it is not there."""

    @abstractmethod
    def remove(self, sha256: str) -> None:
        """Deletes a blob that nothing needs any more."""

    @abstractmethod
    def unfinished(self) -> Iterator[Unfinished]:
        """What writers have begun and not ended."""

    @abstractmethod
    def discard(self, unfinished: Unfinished) -> None:
        """Deletes what a dead writer left."""

    @abstractmethod
    def notes(self) -> Iterator[Note]:
        """Every note."""

    @abstractmethod
    def write_note(self, name: str, text: str) -> None:
        """Makes or replaces a note, in one step."""

    def read_note(self, name: str) -> str | None:
        """A note, be it empty; None only if there is none of this name. Raises StoreError for what is no text."""
        content = self._note(name)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise StoreError(
                f"{self.root}/notes/{name}: is not UTF-8 text: byte {error.start} cannot be read. Restore it from a "
                "backup."
            ) from error

    @abstractmethod
    def remove_note(self, name: str) -> None:
        """Deletes a note, if there is one."""

    @abstractmethod
    def write_lines(self, name: str, lines: Sequence[str]) -> str:
        """Makes the text file `metrics/NAME` hold these lines; returns its path or address.

        It is no blob and no note: the house-keeping leaves it alone.
        """

    @abstractmethod
    def locate(self, sha256: str) -> str:
        """Path or address of a blob."""

    @abstractmethod
    def _note(self, name: str) -> bytes | None:
        """A note's bytes; None if there is none of this name."""

    @abstractmethod
    def _read(self, entry: FileEntry) -> Iterator[bytes]:
        """Parts of a blob that is there, in order."""

    @abstractmethod
    def _write(self, entry: FileEntry, parts: Iterable[bytes]) -> None:
        """Makes a blob appear, whole, once all `parts` came; leaves nothing if they or the storage fail."""

    @abstractmethod
    def _keep(self, sha256: str) -> None:
        """Notes that a blob is in use now, if the last such note is older than REFRESH."""

    def _at_hand(self, name: str, entry: FileEntry, cache: Path) -> Path:
        """A file with the checked bytes of a blob that nobody writes to."""
        path = _parented(cache / entry["sha256"])
        if not path.exists():
            self._copy(name, entry, path)
            path.chmod(0o444)
        return path

    def _copy(self, name: str, entry: FileEntry, target: Path) -> None:
        with replacing(target, target.parent) as file:
            file.writelines(self._blob(name, entry))

    def _size(self, sha256: str) -> int | None:
        blob = self.find(sha256)
        return blob.size if blob else None

    def _put(self, path: Path, check: bool) -> FileEntry:
        # Hashed first, although a new file is then read twice: 600 MB took 1.3 s, a copy hashed on the way
        # 0.8 s. But a file that is stored already took 0.4 s, and nothing was written; and an object store
        # needs the name before the bytes.
        with path.open("rb", buffering=0) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            entry = FileEntry(sha256=sha256, size=file.tell())
        if check and self._is_damaged(entry):
            self.remove(sha256)
        if self._size(sha256) is None:
            changed = StoreError(f"{path}: changed while it was being stored. Store it when nothing writes to it.")
            self._write(entry, checked(chunks(path), sha256, changed))
        else:
            self._keep(sha256)
        self._check_size(str(path), entry)
        return entry

    def _is_damaged(self, entry: FileEntry) -> bool:
        if self._size(entry["sha256"]) is None:
            return False
        try:
            self.verify({"file": entry})
        except BlobError:
            return True
        return False

    def require(self, manifest: Manifest) -> None:
        """Raises as `get` does for what is malformed, missing or of a wrong size; reads no bytes."""
        if not isinstance(manifest, dict) or not manifest:
            raise StoreError(f"{manifest!r}: is not a manifest. Use what `put` returned.")
        for name, entry in manifest.items():
            check_name(name)
            if not is_entry(entry):
                raise StoreError(f"{name}: {entry!r} is not an entry of a manifest. Use what `put` returned.")
            self._check_size(name, entry)

    def _check_size(self, name: str, entry: FileEntry) -> None:
        size = self._size(entry["sha256"])
        if size != entry["size"]:
            how = "is missing" if size is None else f"has {size} bytes, not {entry['size']}"
            raise self._bad(name, entry, how)

    def _blob(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        damaged = self._bad(name, entry, "is damaged, its SHA-256 is not its name")
        return checked(self._read(entry), entry["sha256"], damaged)

    def _bad(self, name: str, entry: FileEntry, how: str) -> BlobError:
        remedy = (
            "Restore it from a backup, or delete it and have it stored again: `wind store verify` "
            "names the command that does both, `resume` from the step that stored it"
        )
        return BlobError(f"{name}: the stored {self.locate(entry['sha256'])} {how}. {remedy}.")


def _parented(path: Path) -> Path:
    """The path, in a folder that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
