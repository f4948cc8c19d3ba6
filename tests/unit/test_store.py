"""The content-addressed store: round trips, damage, escapes, failures and concurrency, all on real files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.errors import BlobError, StoreError
from components.store import PARTIAL, STALE, FileEntry, LocalStore, Manifest, Store, open_store, store_root

# SHA-256 of b"abc" and of nothing, from FIPS 180-4's examples
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "abc").write_bytes(b"abc")
    (directory / "deep" / "empty").write_bytes(b"")
    (directory / "deep" / "er" / "Ünï code").write_bytes(bytes(range(256)) * 9000)  # over two chunks
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


def flip_last_byte(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


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


class ChangingSource(LocalStore):
    """A store whose look for the blob gives another process the time to write to the source."""

    def _size(self, sha256: str) -> int | None:
        (Path(self.root).parent / "source" / "abc").write_bytes(b"xyz")
        return super()._size(sha256)


def test_file_that_changes_meanwhile_is_not_stored(source: Path, tmp_path: Path) -> None:
    store = ChangingSource(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="abc: changed while it was being stored"):
        store.put_file(source / "abc")
    assert blobs(store) == []


CONCURRENT = """
import json, sys, time
from pathlib import Path
from components.store import open_store
root, source, gate = sys.argv[1:]
print("ready", flush=True)
while not Path(gate).exists():
    time.sleep(0.001)
print(json.dumps(open_store(root).put(Path(source))))
"""


def test_processes_may_store_the_same_files_at_once(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for index in range(20):
        (source / f"{index:02}").write_bytes(bytes([index]) * MB)
    gate = tmp_path / "gate"
    processes = [python(CONCURRENT, store.root, source, gate) for _ in range(4)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    gate.touch()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    manifests: list[Manifest] = [json.loads(out) for out, _ in answers]
    assert all(manifest == manifests[0] for manifest in manifests)
    assert len(blobs(store)) == 20
    assert content(store.get(manifests[0], tmp_path / "out")) == content(source)


FULL_DISK = """
import errno, resource, sys
from pathlib import Path
from components.store import open_store
action, root, directory = sys.argv[1:]
store = open_store(root)
manifest = store.put(Path(directory)) if action == "get" else None
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    store.put(Path(directory)) if action == "put" else store.get(manifest, Path(directory + "-out"))
except OSError as error:
    assert error.errno == errno.EFBIG, error
    print("no space")
"""


@pytest.mark.parametrize(("action", "blobs_left"), [("put", 1), ("get", 2)])
def test_failed_write_leaves_no_part_of_a_file(store: Store, tmp_path: Path, action: str, blobs_left: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a-small").write_bytes(b"abc")
    (source / "b-big").write_bytes(bytes(10 * MB))
    out, error = python(FULL_DISK, action, store.root, source).communicate(timeout=60)
    assert (out, error) == ("no space\n", "")
    assert len(blobs(store)) == blobs_left  # whole ones only, and nothing in tmp
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in blobs(store))
    if action == "get":
        assert content(tmp_path / "source-out") == {"a-small": b"abc"}
    store.verify(store.put(source))


KILLED = """
import resource, signal, sys
from pathlib import Path
from components.store import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel kills it in the middle of a write
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
open_store(sys.argv[1]).put(Path(sys.argv[2]))
"""


def partials(directory: Path) -> Iterator[Path]:
    return directory.glob(f"{PARTIAL}*")


def test_killed_put_leaves_no_blob_and_is_cleaned_up_a_day_later(store: Store, tmp_path: Path) -> None:
    source, scratch = tmp_path / "source", Path(store.root, "tmp")
    source.mkdir()
    (source / "big").write_bytes(bytes(10 * MB))
    process = python(KILLED, store.root, source)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGXFSZ
    (unfinished,) = partials(scratch)
    assert unfinished.stat().st_size == 3 * MB
    assert blobs(store) == [unfinished]

    almost = time.time() - STALE + 60
    os.utime(unfinished, (almost, almost))
    os.truncate(source / "big", 5)
    store.put(source)
    assert list(partials(scratch)) == [unfinished]  # it might belong to a living process
    old = time.time() - STALE - 60
    os.utime(unfinished, (old, old))
    (source / "big").write_bytes(b"abc")
    store.put(source)
    assert list(partials(scratch)) == []


def test_what_a_killed_get_leaves_is_not_stored(store: Store, source: Path) -> None:
    expected = store.put(source)
    (source / "deep" / f"{PARTIAL}0").write_bytes(b"half a fi")
    assert store.put(source) == expected


MEMORY = """
import json, resource, sys
from pathlib import Path
from components.store import open_store
root, source, out = sys.argv[1:]
open_store(root + "-warm").put_file(Path(sys.executable))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = open_store(root)
store.get(store.put(Path(source)), Path(out))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_file(store: Store, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    with (source / "weights").open("wb") as file:
        file.truncate(200 * MB)
    printed, error = python(MEMORY, store.root, source, out).communicate(timeout=120)
    assert error == ""
    assert (out / "weights").stat().st_size == 200 * MB
    assert int(printed) < 16  # MB


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
    assert all(abs(note.written - time.time()) < 60 for note in notes)
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
