"""A local store, and copies from any store, on a disk that is full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.store import Store, open_store

pytestmark = pytest.mark.thorough

MB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=False).returncode:
        pytest.skip("needs to be allowed to mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a-small").write_bytes(b"abc")
    (folder / "b-big").write_bytes(os.urandom(6 * MB))
    return folder


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_full_disk_while_saving(small_disk: Path, source: Path) -> None:
    store = open_store(str(small_disk / "wind_store"))
    store.check(space=3 * MB)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.put(source)
    assert caught.value.errno == errno.ENOSPC
    assert str(small_disk / "wind_store" / "sha256") in str(caught.value)
    assert len(files(small_disk)) == 1  # the small file, whole
    (source / "b-big").write_bytes(os.urandom(2 * MB))  # as if there were more space now
    store.verify(store.put(source))


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "wind_store") if request.param == "local" else request.getfixturevalue("s3_root"))


def test_full_disk_while_loading(store: Store, small_disk: Path, source: Path) -> None:
    manifest = store.put(source)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.get(manifest, small_disk / "out")
    assert str(small_disk / "out" / "b-big") in str(caught.value)
    assert files(small_disk) == ["a-small"]
    store.verify(manifest)
