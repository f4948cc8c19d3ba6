"""The store on S3, against Ceph's radosgw and against moto's stand-in."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import Store, open_store
from components.store import s3 as s3_module
from components.store.s3_client import connect
from components.store.s3_transfer import PART, Object
from support.cloud.buckets import BIG, Bucket, flip, large_files, truncate

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

# SHA-256 of b"abc", from FIPS 180-4's examples
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(params=["radosgw_server", "moto_server"])
def store(request, use_server) -> Store:
    return open_store(use_server(request.getfixturevalue(request.param)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return large_files(tmp_path / "source")


def content(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def bucket(store: Store) -> Bucket:
    return Bucket(store)


@pytest.fixture
def sent(store: Store) -> list[int]:
    """Bytes in the body of each request from now on."""
    sizes: list[int] = []
    events = connect(store.root).meta.events
    events.register(
        "before-send.s3", lambda request, **_: sizes.append(int(request.headers.get("Content-Length") or 0))
    )
    return sizes


def test_directory_comes_back_as_it_was(store: Store, source: Path, tmp_path: Path, bucket: Bucket) -> None:
    manifest = store.put(source)
    assert list(manifest) == ["abc", "deep/empty", "deep/Ünï code"]
    assert manifest["abc"] == {"sha256": ABC, "size": 3}
    big = hashlib.sha256((source / "deep/Ünï code").read_bytes()).hexdigest()
    assert manifest["deep/Ünï code"] == {"sha256": big, "size": BIG}
    assert content(store.get(manifest, tmp_path / "out")) == content(source)
    store.verify(manifest)
    assert sorted(bucket.keys()) == sorted(bucket.key(entry["sha256"]) for entry in manifest.values())
    assert {blob.sha256: blob.size for blob in store.blobs()} == {e["sha256"]: e["size"] for e in manifest.values()}
    assert list(store.unfinished()) == []


def test_a_view_brings_a_file_once(store: Store, source: Path, tmp_path: Path, monkeypatch) -> None:
    manifest = store.put(source)
    large = {name for name, entry in manifest.items() if entry["size"] > 1 << 20}
    assert large
    fetched: list[str] = []
    read = Object.read

    def reading(self: Object, size: int) -> Iterator[bytes]:
        fetched.append(self.key[-64:])
        return read(self, size)

    monkeypatch.setattr(Object, "read", reading)
    views = [store.view(manifest, tmp_path / f"view-{number}", tmp_path / "cache") for number in range(2)]
    assert [content(view) for view in views] == [content(source)] * 2
    assert all(fetched.count(manifest[name]["sha256"]) == 1 for name in large)
    copies = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()}
    assert copies == {manifest[name]["sha256"]: 0o444 for name in large}


def test_equal_manifest_on_any_store(store: Store, source: Path, tmp_path: Path) -> None:
    assert store.put(source) == open_store(str(tmp_path / "local")).put(source)


def test_second_save_sends_no_bytes(store: Store, source: Path, tmp_path: Path, sent: list[int]) -> None:
    first = store.put(source)
    assert sum(sent) >= BIG + 3
    sent.clear()
    (source / "abc").rename(source / "another name")
    second = store.put(source)
    assert second["another name"] == first["abc"]
    assert sum(sent) == 0


@pytest.mark.parametrize("size", [3, BIG])
def test_what_is_there_is_not_overwritten(store: Store, bucket: Bucket, size: int) -> None:
    right = bytes(size)
    entry = {"sha256": hashlib.sha256(right).hexdigest(), "size": size}
    wrong = b"x" * size
    bucket.write(entry["sha256"], wrong)
    store._write(entry, [right])  # as if it had appeared after the look for it
    assert bucket.read(entry["sha256"]) == wrong
    assert list(store.unfinished()) == []


def half_upload(bucket: Bucket, sha256: str) -> None:
    value = bucket.read(sha256)
    bucket.delete(sha256)
    begun = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=bucket.key(sha256))
    part = {"Bucket": bucket.name, "Key": bucket.key(sha256), "UploadId": begun["UploadId"], "PartNumber": 1}
    bucket.client.upload_part(**part, Body=value[:PART])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "is damaged, its SHA-256 is not its name"),
        (truncate, f"has {BIG - 1} bytes, not {BIG}"),
        (Bucket.delete, "is missing"),
        (half_upload, "is missing"),
    ],
)
def test_damage_is_named_and_not_passed_on(
    store: Store, source: Path, tmp_path: Path, bucket: Bucket, damage, message
) -> None:
    manifest = store.put(source)
    sha256 = manifest["deep/Ünï code"]["sha256"]
    damage(bucket, sha256)
    for read in (store.verify, lambda m: store.get(m, tmp_path / "out")):
        with pytest.raises(StoreError) as caught:
            read(manifest)
        for part in ("deep/Ünï code", f"{store.root}/sha256/{sha256[:2]}/{sha256}", message, "Restore it from a"):
            assert part in str(caught.value)
    assert set(content(tmp_path / "out")) <= {"abc", "deep/empty"}


def test_half_upload_does_not_stand_in_the_way(store: Store, source: Path, bucket: Bucket) -> None:
    manifest = store.put(source)
    sha256 = manifest["deep/Ünï code"]["sha256"]
    half_upload(bucket, sha256)
    (left,) = store.unfinished()
    assert left.where == store.locate(sha256)
    assert left.begun < time.time() + 1  # moto says 2010, always
    assert store.put(source) == manifest
    store.verify(manifest)
    store.discard(left)
    assert list(store.unfinished()) == []
    store.verify(manifest)


@pytest.mark.parametrize("size", [3, BIG])
def test_file_that_changes_meanwhile_is_not_stored(
    store: Store, tmp_path: Path, bucket: Bucket, monkeypatch, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    find = s3_module.S3Store.find

    def changing(self: Store, sha256: str):
        path.write_bytes(b"x" * size)
        return find(self, sha256)

    monkeypatch.setattr(s3_module.S3Store, "find", changing)
    with pytest.raises(StoreError, match="file: changed while it was being stored"):
        store.put_file(path)
    assert bucket.keys() == []
    assert list(store.unfinished()) == []


def test_put_that_finds_an_old_blob_renews_it(store: Store, source: Path, monkeypatch) -> None:
    store.put_file(source / "abc")
    before = store.find(ABC)
    assert before
    store.put_file(source / "abc")
    assert store.find(ABC) == before  # young enough
    monkeypatch.setattr(s3_module, "REFRESH", -1)
    time.sleep(1.1)  # moto's times are whole seconds
    store.put_file(source / "abc")
    after = store.find(ABC)
    assert after
    assert before.used < after.used <= time.time() + 1
    assert [int(blob.used) for blob in store.blobs()] == [int(after.used)]  # a HEAD tells no fractions
    store.verify({"abc": {"sha256": ABC, "size": 3}})
    store.remove(ABC)
    assert store.find(ABC) is None
    assert list(store.blobs()) == []
