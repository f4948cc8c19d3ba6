"""The content-addressed store: round trips, damage, escapes, failures and concurrency, all on real files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.errors import BlobError, StoreError
from components.store import STALE, FileEntry, LocalStore, Store, open_store, store_root
from support.stores import ABC, blob, blobs, content, flip_last_byte, python, small_files

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_files(tmp_path / "source")


def test_directory_comes_back_as_it_was(store: Store, source: Path, tmp_path: Path) -> None:
    manifest = store.put(source)
    long = hashlib.sha256(bytes(range(256)) * 9000).hexdigest()
    assert list(manifest.items()) == [
        ("abc", {"sha256": ABC, "size": 3}),
        ("deep.txt", {"sha256": ABC, "size": 3}),
        ("deep/empty", {"sha256": EMPTY, "size": 0}),
        ("deep/er/Ünï code", {"sha256": long, "size": 2304000}),
    ]
    assert json.loads(json.dumps(manifest)) == manifest
    assert type(manifest) is dict
    target = tmp_path / "new" / "target"
    assert store.get(manifest, target) == target
    assert content(target) == content(source)
    store.verify(manifest)


def test_blobs_are_named_by_their_hash_and_read_only(store: Store, source: Path) -> None:
    store.put(source)
    assert len(blobs(store)) == 3
    for path in blobs(store):
        assert path == blob(store, hashlib.sha256(path.read_bytes()).hexdigest())
        assert path.stat().st_mode & 0o777 == 0o444


def test_known_content_is_not_written_again(store: Store, source: Path, tmp_path: Path) -> None:
    first = store.put(source)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in blobs(store)}
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "other name").write_bytes(b"abc")
    assert store.put(source) == first
    assert store.put(tmp_path / "copy") == {"other name": {"sha256": ABC, "size": 3}}
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in blobs(store)} == before


def test_one_file_under_a_name(store: Store, source: Path, tmp_path: Path) -> None:
    assert store.put_file(source / "abc") == {"abc": {"sha256": ABC, "size": 3}}
    manifest = store.put_file(source / "abc", "state/step.bin")
    assert manifest == {"state/step.bin": {"sha256": ABC, "size": 3}}
    assert content(store.get(manifest, tmp_path / "out")) == {"state/step.bin": b"abc"}


def test_links_to_files_are_stored_as_files(store: Store, source: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "model").symlink_to(source / "abc")
    out = store.get(store.put(tmp_path / "links"), tmp_path / "out")
    assert (out / "model").read_bytes() == b"abc"
    assert not (out / "model").is_symlink()


def test_copies_are_writable_and_independent(store: Store, source: Path, tmp_path: Path) -> None:
    manifest = store.put(source)
    copy = store.get(manifest, tmp_path / "out") / "abc"
    umask = os.umask(0)
    os.umask(umask)
    assert copy.stat().st_mode & 0o777 == 0o666 & ~umask
    with copy.open("r+b") as file:
        file.write(b"xyz")
    (source / "abc").write_bytes(b"changed")
    store.verify(manifest)
    assert (store.get(manifest, tmp_path / "again") / "abc").read_bytes() == b"abc"


def test_a_view_takes_no_space_for_large_files(store: Store, source: Path, tmp_path: Path) -> None:
    manifest = store.put(source)
    view = store.view(manifest, tmp_path / "view", tmp_path / "cache")
    assert content(view) == content(source)
    large = view / "deep" / "er" / "Ünï code"
    assert large.resolve() == blob(store, manifest["deep/er/Ünï code"]["sha256"])
    own = [path for path in view.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sorted(path.relative_to(view).as_posix() for path in own) == ["abc", "deep.txt", "deep/empty"]
    (view / "abc").write_bytes(b"xyz")
    large.unlink()
    store.verify(manifest)


def test_files_seen_in_a_view_cannot_be_written(source: Path, tmp_path: Path) -> None:
    """By a user who is not root, as on most machines; root is stopped by nothing."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    code = """
import os, sys
from pathlib import Path
if os.getuid() == 0:
    os.setuid(65534)
try:
    Path(sys.argv[1]).open("r+b")
except PermissionError:
    print("refused")
"""
    store = open_store(str(tmp_path / "store"))
    view = store.view(store.put(source), tmp_path / "view", tmp_path / "cache")
    assert python(code, view / "deep" / "er" / "Ünï code").communicate()[0] == "refused\n"


def test_a_view_checks_a_file_once(store: Store, source: Path, tmp_path: Path, monkeypatch) -> None:
    manifest = store.put(source)
    read: list[str] = []
    blobs_of = LocalStore._blob

    def reading(self: LocalStore, name: str, entry: FileEntry) -> Iterator[bytes]:
        read.append(name)
        return blobs_of(self, name, entry)

    monkeypatch.setattr(LocalStore, "_blob", reading)
    for number in range(2):
        store.view(manifest, tmp_path / f"view-{number}", tmp_path / "cache")
    assert read.count("deep/er/Ünï code") == 1
    damaged = blob(store, manifest["deep/er/Ünï code"]["sha256"])
    flip_last_byte(damaged)
    with pytest.raises(BlobError, match="is damaged"):
        store.view(manifest, tmp_path / "view", tmp_path / "another cache")


def test_get_replaces_its_own_files_only(store: Store, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "other").write_text("stays")
    (out / "deep.txt").symlink_to(out / "other")  # the link is replaced, not written through
    (out / "abc").write_text("older")
    (out / "abc").chmod(0o444)
    store.get(store.put(source), out)
    assert content(out) == {**content(source), "other": b"stays"}
    assert not (out / "deep.txt").is_symlink()


def test_destination_itself_may_be_a_link(store: Store, source: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store.get(store.put(source), tmp_path / "link")
    assert content(tmp_path / "real") == content(source)


def test_store_is_known_by_its_root(store: Store, source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("store") == store
    assert open_store("other/../store") == store
    assert open_store("other") != store
    restored = pickle.loads(pickle.dumps(store))
    assert restored == store
    restored.verify(store.put(source))


@pytest.mark.parametrize("scheme", ["gs", "azure", "http"])
def test_other_addresses_are_not_supported(scheme: str) -> None:
    with pytest.raises(StoreError, match=f"{scheme}:// is not supported by this version"):
        open_store(f"{scheme}://bucket/store")


@pytest.mark.parametrize(
    ("datastore_type", "root", "expected"),
    [
        ("local", "/nowhere/data/.metaflow", "/nowhere/data/wind_store"),
        ("local", "/nowhere/data/.metaflow/", "/nowhere/data/wind_store"),
        ("s3", "s3://bucket/team/metaflow", "s3://bucket/team/wind_store"),
        ("s3", "s3://bucket/metaflow/", "s3://bucket/wind_store"),
        ("s3", "s3://bucket/", "s3://bucket/wind_store"),
        ("s3", "s3://bucket", "s3://bucket/wind_store"),
    ],
)
def test_store_lies_beside_the_datastore(datastore_type: str, root: str, expected: str) -> None:
    assert store_root(datastore_type, root) == expected


def test_local_store_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_root("local", ".metaflow") == str(tmp_path.resolve() / "wind_store")


@pytest.mark.parametrize(("datastore_type", "root"), [("azure", "x/y"), ("s3", "bucket/x"), ("s3", "s3://")])
def test_other_datastores_have_no_store(datastore_type: str, root: str) -> None:
    with pytest.raises(StoreError, match="has no store"):
        store_root(datastore_type, root)


def test_notes_may_change(store: Store) -> None:
    assert store.read_note("one") is None
    for text in ("first", "second, longer", "", "Ünï"):
        store.write_note("one", text)
        assert store.read_note("one") == text
    store.write_note("two", "2")
    notes = sorted(store.notes(), key=lambda note: note.name)
    assert [note.name for note in notes] == ["one", "two"]
    assert all(abs(note.written - time.time()) < 600 for note in notes)
    for _ in range(2):
        store.remove_note("one")
    assert store.read_note("one") is None
    assert [note.name for note in store.notes()] == ["two"]
    assert list(store.unfinished()) == list(store.blobs()) == []


def test_notes_outlive_what_dead_writers_left(store: Store, source: Path, tmp_path: Path) -> None:
    """A run that failed on Friday is resumed on Monday."""
    store.write_note("unfinished", "training")
    old = time.time() - STALE - 60
    os.utime(Path(store.root, "notes", "unfinished"), (old, old))
    store.put(source)
    assert store.read_note("unfinished") == "training"
