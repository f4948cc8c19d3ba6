"""What may happen to a local store while a run uses it: the run ends with what the file system said and a remedy."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import Manifest, Store, open_store
from components.store.references import uses

pytestmark = pytest.mark.thorough


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"any")
    return tmp_path / "source"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "wind_store"))


@pytest.fixture
def stored(store: Store, source: Path) -> Manifest:
    store.write_note("task-1", "text")
    return store.put(source)


def use(store: Store, source: Path, stored: Manifest, action: str) -> object:
    return {
        "check": store.check,
        "put": lambda: store.put(source),
        "get": lambda: store.get(stored, source.parent / "out"),
        "verify": lambda: store.verify(stored),
        "write note": lambda: store.write_note("task-2", "text"),
        "write lines": lambda: store.write_lines("x.jsonl", ["{}"]),
        "read note": lambda: store.read_note("task-1"),
        "remove note": lambda: store.remove_note("task-1"),
        "list notes": lambda: uses(store),
    }[action]()


READING = ["get", "verify", "read note", "list notes"]
WRITING = ["check", "put", "write note", "write lines", "remove note"]


@pytest.mark.parametrize("action", READING + WRITING)
def test_a_file_in_the_place_of_the_store(store: Store, source: Path, stored: Manifest, action: str) -> None:
    shutil.rmtree(store.root)
    Path(store.root).write_text("a file")
    if action == "check":
        with pytest.raises(StoreError, match="Remove the file that is in the directory's place"):
            use(store, source, stored, action)
        return
    with pytest.raises(
        StoreError, match=r"Not a directory.* Remove the file that is in the directory's place"
    ) as caught:
        use(store, source, stored, action)
    assert str(caught.value).startswith(store.root)


@pytest.mark.parametrize("action", READING + WRITING)
def test_a_link_to_itself_in_the_place_of_the_store(store: Store, source: Path, stored: Manifest, action: str) -> None:
    shutil.rmtree(store.root)
    Path(store.root).symlink_to(store.root)
    with pytest.raises(StoreError) as caught:
        use(store, source, stored, action)
    assert str(caught.value).startswith(store.root)
    assert ", or set METAFLOW_DATASTORE_SYSROOT_LOCAL" in str(caught.value)


@pytest.mark.parametrize("folder", ["notes", "sha256", "tmp", "metrics"])
def test_a_file_in_the_place_of_a_folder(store: Store, source: Path, stored: Manifest, folder: str) -> None:
    shutil.rmtree(Path(store.root, folder), ignore_errors=True)
    Path(store.root, folder).write_text("a file")
    action = {"notes": "list notes", "sha256": "get", "tmp": "write note", "metrics": "write lines"}[folder]
    with pytest.raises(StoreError, match="Remove the file that is in the directory's place"):
        use(store, source, stored, action)


def test_a_folder_in_the_place_of_a_note_and_of_a_file(store: Store, source: Path, stored: Manifest) -> None:
    Path(store.root, "notes", "task-2").mkdir()
    with pytest.raises(StoreError, match=r"Is a directory.* Remove the directory that is in the file's place"):
        use(store, source, stored, "write note")
    blob = Path(store.locate(stored["file"]["sha256"]))
    blob.unlink()
    blob.mkdir()
    for action in ("get", "verify", "put"):
        with pytest.raises(StoreError, match=str(blob)):
            use(store, source, stored, action)


def test_a_name_that_is_too_long(store: Store) -> None:
    for act in (lambda: store.write_note("x" * 300, "text"), lambda: store.write_lines("x" * 300, [])):
        with pytest.raises(StoreError, match=r"File name too long.* Shorten the path"):
            act()


@pytest.fixture
def read_only(store: Store, stored: Manifest) -> Iterator[None]:
    """The store, mounted once more, read-only."""
    bound = ["mount", "--bind", store.root, store.root]
    if subprocess.run(bound, check=False, capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", store.root], check=True)
        yield
    finally:
        subprocess.run(["umount", store.root], check=True)


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("action", WRITING)
def test_a_store_mounted_read_only(store: Store, source: Path, stored: Manifest, action: str) -> None:
    (source / "file").write_bytes(os.urandom(8))
    with pytest.raises(StoreError, match=r"Read-only file system.* Mount it for writing, or set") as caught:
        use(store, source, stored, action)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EROFS
    store.verify(stored)
