"""Damaged files of a store, and entries of a manifest that cannot be followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import PARTIAL, Store, open_store
from support.stores import ABC, blob, content, flip_last_byte, small_files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_files(tmp_path / "source")


def truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_last_byte, "is damaged, its SHA-256 is not its name"),
        (truncate, "has 2303999 bytes, not 2304000"),
        (Path.unlink, "is missing"),
    ],
)
def test_damage_is_named_and_not_passed_on(store: Store, source: Path, tmp_path: Path, damage, message) -> None:
    manifest = store.put(source)
    path = blob(store, manifest["deep/er/Ünï code"]["sha256"])
    damage(path)
    for read in (store.verify, lambda m: store.get(m, tmp_path / "out")):
        with pytest.raises(StoreError) as caught:
            read(manifest)
        for part in ("deep/er/Ünï code", str(path), message, "Restore it from a backup, or delete"):
            assert part in str(caught.value)
    left = content(tmp_path / "out")
    assert "deep/er/Ünï code" not in left
    assert not [name for name in left if PARTIAL in name]


@pytest.mark.parametrize("damage", [flip_last_byte, truncate])
def test_put_heals_when_told_so(store: Store, source: Path, damage) -> None:
    manifest = store.put(source)
    path = blob(store, manifest["deep/er/Ünï code"]["sha256"])
    damage(path)
    whole = blob(store, ABC).stat().st_ino
    assert store.put(source, check=True) == manifest
    store.verify(manifest)
    assert path.stat().st_mode & 0o777 == 0o444
    assert blob(store, ABC).stat().st_ino == whole
    damage(path)
    assert store.put_file(source / "deep" / "er" / "Ünï code", "name", check=True)
    store.verify(manifest)


def test_blob_of_wrong_size_is_reported_by_put_and_kept(store: Store, source: Path) -> None:
    store.put(source)
    truncate(blob(store, ABC))
    with pytest.raises(StoreError, match="has 2 bytes, not 3"):
        store.put(source)
    assert blob(store, ABC).read_bytes() == b"ab"
    blob(store, ABC).unlink()  # as the message says
    store.verify(store.put(source))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/../../up",
        "a/..",
        "/absolute",
        "a//b",
        "a/",
        "./a",
        "a/./b",
        "a\0b",
        7,
        None,
    ],
)
def test_paths_out_of_the_directory_are_refused(store: Store, source: Path, tmp_path: Path, name) -> None:
    entry = store.put(source)["abc"]
    with pytest.raises(StoreError, match="is not a path inside a directory"):
        store.get({name: entry}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "up").exists()


def test_bad_name_is_refused_before_storing(store: Store, source: Path) -> None:
    with pytest.raises(StoreError, match="is not a path inside a directory"):
        store.put_file(source / "abc", "../abc")
    assert not Path(store.root).exists()


@pytest.mark.parametrize("link", ["deep", "deep/er"])
def test_linked_parents_are_refused(store: Store, source: Path, tmp_path: Path, link: str) -> None:
    manifest = store.put(source)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(elsewhere)
    with pytest.raises(StoreError, match=f"{link} is a link that may lead out"):
        store.get(manifest, out)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "abc",
        {},
        {"sha256": ABC},
        {"size": 3},
        {"sha256": ABC, "size": "3"},
        {"sha256": ABC[:-1], "size": 3},
        {"sha256": ABC.upper(), "size": 3},
        {"sha256": ABC + "\n", "size": 3},
        {"sha256": "../../" + ABC[6:], "size": 3},
        {"sha256": None, "size": 3},
    ],
)
def test_malformed_entries_are_refused(store: Store, source: Path, entry) -> None:
    store.put(source)
    with pytest.raises(StoreError, match=r"abc: .* is not an entry of a manifest"):
        store.verify({"abc": entry})


@pytest.mark.parametrize("manifest", [{}, None, [], "abc"])
def test_what_is_no_manifest_is_refused(store: Store, tmp_path: Path, manifest) -> None:
    with pytest.raises(StoreError, match="is not a manifest"):
        store.get(manifest, tmp_path / "out")


def test_directory_without_files_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(StoreError, match="holds no file to store"):
        store.put(tmp_path / "empty")


@pytest.mark.parametrize("path", ["missing", "source/abc"])
def test_put_wants_a_directory(store: Store, source: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="is not a directory"):
        store.put(tmp_path / path)


@pytest.mark.parametrize("path", ["missing", "source"])
def test_put_file_wants_a_file(store: Store, source: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="is not a file"):
        store.put_file(tmp_path / path)


@pytest.mark.parametrize("target", ["nowhere", "deep", ".", "self"])
def test_links_that_lead_to_no_file_are_refused(store: Store, source: Path, target: str) -> None:
    (source / "self").symlink_to(target)
    with pytest.raises(StoreError, match="self: is neither a file, a directory nor a link to a file"):
        store.put(source)


def test_pipe_is_refused_rather_than_waited_for(store: Store, source: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(StoreError, match="pipe: is neither"):
        store.put(source)
