"""A store and its processes: several write at once, are killed, or have no room; and memory stays small."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import PARTIAL, STALE, LocalStore, Manifest, Store, open_store
from support.stores import blobs, content, python, small_files

MB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_files(tmp_path / "source")


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
    answers = [process.communicate(timeout=300) for process in processes]
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
    out, error = python(FULL_DISK, action, store.root, source).communicate(timeout=300)
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
    process.communicate(timeout=300)
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


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_file(store: Store, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    with (source / "weights").open("wb") as file:
        file.truncate(200 * MB)
    printed, error = python(MEMORY, store.root, source, out).communicate(timeout=600)
    assert error == ""
    assert (out / "weights").stat().st_size == 200 * MB
    assert int(printed) < 16  # MB
