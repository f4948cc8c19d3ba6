"""What a store asks of an S3 server: few small requests, encryption, parts, and notes that may change."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import Manifest, Store, open_store
from components.store import s3 as s3_module
from components.store.references import uses
from components.store.s3_client import CHECK_TRIES, connect
from components.store.s3_transfer import AHEAD, in_order, part_size
from support.cloud.buckets import BIG, Bucket, flip, large_files, truncate

pytestmark = [pytest.mark.s3, pytest.mark.thorough]


@pytest.fixture(params=["radosgw_server", "moto_server"])
def store(request, use_server) -> Store:
    return open_store(use_server(request.getfixturevalue(request.param)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return large_files(tmp_path / "source")


@pytest.fixture
def bucket(store: Store) -> Bucket:
    return Bucket(store)


def test_check_leaves_one_small_object(store: Store, bucket: Bucket) -> None:
    store.check()
    store.check(space=10**18)
    assert bucket.keys() == [f"{bucket.prefix}/check"]
    assert list(store.blobs()) == []


@pytest.mark.parametrize("fits", [True, False])
def test_a_long_prefix_is_refused_at_once(moto_server, use_server, fits: bool) -> None:
    """The longest name below the root has 96 bytes and the slash before them: 1024 - 97 are left, "é" takes two."""
    use_server(moto_server)
    prefix = "é" * 10 + "p" * (1024 - 97 - 20 + (0 if fits else 1))
    store = open_store(f"s3://wind/{prefix}")
    if fits:
        store.check()
        return
    with pytest.raises(StoreError, match=r": is 1 bytes too long.*Shorten METAFLOW_DATASTORE_SYSROOT_S3\.$"):
        store.check()


def test_failure_to_read_back_is_reported(store: Store, monkeypatch) -> None:
    monkeypatch.setattr("components.store.s3_transfer.Object.read", lambda self, size: iter([b"other"]))
    with pytest.raises(StoreError, match="did not read as it was written"):
        store.check()


def test_store_is_known_by_its_root(store: Store, source: Path) -> None:
    assert open_store(f"{store.root}/") == store
    assert open_store(store.root.replace("/wind_store", "//wind_store")) == store
    restored = pickle.loads(pickle.dumps(store))
    assert restored == store
    manifest: Manifest = restored.put_file(source / "abc")
    store.verify(manifest)


def test_server_side_encryption_is_asked_for(store: Store, tmp_path: Path, monkeypatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr("metaflow.metaflow_config.S3_SERVER_SIDE_ENCRYPTION", "AES256")

    def note(params, **_: object) -> None:
        asked.append(params["headers"].pop("x-amz-server-side-encryption", None))  # not every server can do it

    for operation in ("PutObject", "CreateMultipartUpload"):
        for tries in (None, CHECK_TRIES):  # a client each
            connect(store.root, tries).meta.events.register(f"before-call.s3.{operation}", note)
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "big").write_bytes(bytes(BIG))
    manifest = store.put(tmp_path)
    assert asked == ["AES256", "AES256"]
    store.check()
    store.write_note("note", "text")
    monkeypatch.setattr(s3_module, "REFRESH", -1)  # every put of what is there marks it
    assert store.put(tmp_path) == manifest
    assert asked == ["AES256"] * 7  # two probes, a note and two marks


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 8 << 20), (1, 8 << 20), (80_000 << 20, 8 << 20), ((80_000 << 20) + 1, (8 << 20) + 1), (5 << 40, 549755814)],
)
def test_parts_are_few_enough_for_s3(size: int, expected: int) -> None:
    assert part_size(size) == expected
    assert -(-size // expected) <= 10_000


def test_results_keep_their_order_and_errors_come_through() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert list(in_order(slow_first, range(20))) == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // (n - 3), range(20)))


def test_items_are_taken_as_results_are() -> None:
    taken: list[int] = []
    results = in_order(lambda n: n, (taken.append(n) or n for n in range(100)))
    assert next(results) == 0
    assert len(taken) == AHEAD + 1  # the next one is at hand
    results.close()


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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run":"Flow/2","files":"x"}'])
def test_an_empty_or_malformed_note_is_told_from_one_that_is_gone(store: Store, bucket: Bucket, text: str) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/notes/", Body=b"")  # as consoles make folders
    assert list(store.notes()) == []
    assert uses(store) == {}
    store.write_note("task-2", text)
    with pytest.raises(StoreError, match="the note task-2 cannot be read"):
        uses(store)
    store.remove_note("task-2")
    assert uses(store) == {}
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/notes/task-2", Body=bytes([200]))
    with pytest.raises(StoreError, match="notes/task-2: is not UTF-8 text"):
        uses(store)


@pytest.mark.parametrize("damage", [flip, truncate])
def test_put_heals_when_told_so(store: Store, source: Path, tmp_path: Path, bucket: Bucket, damage) -> None:
    manifest = store.put(source)
    damage(bucket, manifest["deep/Ünï code"]["sha256"])
    assert store.put(source, check=True) == manifest
    store.verify(manifest)
