"""Storage that fails on the way: what is tried again ends in the same bytes, what is not ends in a clear StoreError."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import Store, open_store, s3_client
from components.store.s3_transfer import PART
from support.faults.proxy import Fault, Proxy

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

PATIENCE = 4  # seconds for an answer, where answers that do not come are looked at
SIZE = 3 * PART + 1000  # bytes: four parts


@pytest.fixture
def proxy(s3_server) -> Iterator[Proxy]:
    with Proxy(s3_server.endpoint.removeprefix("http://")) as running:
        yield running


@pytest.fixture
def store(s3_server, proxy: Proxy, use_server) -> Iterator[Store]:
    yield open_store(use_server(s3_server, METAFLOW_S3_ENDPOINT_URL=proxy.endpoint))
    s3_client.client_for.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(SIZE))
    (folder / "config").write_bytes(b"{}")
    return folder


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs and tries of a test instead of a network."""
    monkeypatch.setattr(s3_client, "READ_TIMEOUT", PATIENCE)
    monkeypatch.setattr(s3_client, "TRIES", 2)


def same(first: Path, second: Path) -> bool:
    return {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


PASSING = [
    Fault("error", "PUT .*partNumber=2", status=500, times=2),
    Fault("error", "PUT .*partNumber=3", status=503),
    Fault("error", "POST .*uploads", status=503),
    Fault("error", "POST .*uploadId", status=500),
    Fault("error", "HEAD ", status=503, times=2),
    Fault("error", "GET .*sha256", status=500, times=3),
    Fault("error", "GET .*sha256", status=503),
    Fault("cut request", "PUT .*partNumber=1"),
    Fault("cut request", "PUT .*sha256/../[0-9a-f]+$"),
    Fault("cut answer", "GET .*sha256", times=3),
    Fault("lose answer", "PUT .*partNumber=4"),
    Fault("lose answer", "PUT .*sha256/../[0-9a-f]+$"),
    Fault("lose answer", "POST .*uploadId"),
    Fault("lose answer", "GET .*sha256"),
    Fault("slow", "PUT .*partNumber", seconds=0.5, times=2),
    Fault("slow", "GET .*sha256", seconds=0.5, times=2),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.kind} {f.status} {f.match} x{f.times}")
def test_faults_that_pass_leave_no_trace(
    fault: Fault, store: Store, source: Path, tmp_path: Path, proxy: Proxy
) -> None:
    times = fault.times
    proxy.faults = [Fault(fault.kind, fault.match, times, fault.status, fault.seconds)]
    manifest = store.put(source)
    assert same(store.get(manifest, tmp_path / "out"), source)
    assert proxy.done == {fault.kind: times}
    proxy.faults = []
    store.verify(manifest)
    assert len(list(store.blobs())) == 2
    assert list(store.unfinished()) == []


def test_all_faults_together(store: Store, source: Path, tmp_path: Path, proxy: Proxy) -> None:
    proxy.faults = [Fault(f.kind, f.match, 1, f.status, f.seconds) for f in PASSING]
    manifest = store.put(source)
    assert same(store.get(manifest, tmp_path / "out"), source)
    assert proxy.done.total() == len(PASSING)


def test_stalled_answer_is_asked_for_again(store: Store, source: Path, tmp_path: Path, proxy: Proxy, soon) -> None:
    manifest = store.put(source)
    proxy.faults = [Fault("slow", "GET .*sha256", seconds=60)]
    begin = time.monotonic()
    assert same(store.get(manifest, tmp_path / "out"), source)
    assert time.monotonic() - begin >= PATIENCE  # waited for, then given up
    assert proxy.done == {"slow": 1}


LASTING = [
    ("put", Fault("error", "PUT .*partNumber=2", times=99), "the server says InternalError"),
    ("put", Fault("error", "POST .*uploadId", status=503, times=99), "the server says InternalError"),
    ("put", Fault("error", "POST .*uploads", status=503, times=99), "the server says InternalError"),
    ("put", Fault("error", "HEAD ", status=503, times=99), "the server says 503"),
    ("put", Fault("cut request", "PUT .*partNumber=2", times=99), "the server hangs up"),
    ("put", Fault("lose answer", "PUT .*partNumber=2", times=99), "the server hangs up"),
    ("put", Fault("slow", "PUT .*partNumber=2", times=99, seconds=60), "the server stopped answering"),
    ("get", Fault("error", "GET .*sha256", status=503, times=99), "the server says InternalError"),
    ("get", Fault("cut answer", "GET .*sha256", times=99), "broke off 2 times"),
    ("get", Fault("lose answer", "GET .*sha256", times=99), "the server hangs up"),
]


@pytest.mark.parametrize(("action", "fault", "message"), LASTING, ids=lambda v: getattr(v, "kind", None))
def test_faults_that_last_end_in_a_clear_error(
    action: str, fault: Fault, message: str, store: Store, source: Path, tmp_path: Path, proxy: Proxy, soon
) -> None:
    manifest = store.put(source) if action == "get" else None
    proxy.faults = [Fault(fault.kind, fault.match, fault.times, fault.status, fault.seconds)]
    with pytest.raises(StoreError) as caught:
        store.get(manifest, tmp_path / "out") if manifest else store.put(source)
    assert f"{store.root}/sha256/" in str(caught.value)
    assert message in str(caught.value)
    assert "then resume the run" in str(caught.value) or "Check that it is an S3 server" in str(caught.value)
    proxy.faults = []
    if manifest:
        assert {p.name for p in (tmp_path / "out").iterdir()} <= {"config"}
    else:
        assert list(store.unfinished()) == []
        assert {blob.size for blob in store.blobs()} <= {2}  # the small file, which came first
    assert same(store.get(store.put(source), tmp_path / "again"), source)


def test_server_that_ignores_ranges_is_named(store: Store, source: Path, tmp_path: Path) -> None:
    manifest = store.put(source)

    def forget_range(params, **_: object) -> None:
        del params["headers"]["Range"]

    s3_client.connect(store.root).meta.events.register("before-call.s3.GetObject", forget_range)
    with pytest.raises(StoreError, match=rf"reading bytes 0 to {PART} got {SIZE} bytes"):
        store.get({"weights": manifest["weights"]}, tmp_path / "out")


WRITER = """
import sys
from pathlib import Path
from components.store import open_store
print("ready", flush=True)
open_store(sys.argv[1]).put(Path(sys.argv[2]))
"""


def writer(store: Store, source: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, store.root, str(source)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("point", ["POST .*uploads", "PUT .*partNumber=2", "POST .*uploadId"])
def test_killed_writer_leaves_nothing_that_a_reader_takes(
    point: str, store: Store, source: Path, tmp_path: Path, proxy: Proxy, wait_for: Callable[..., None]
) -> None:
    proxy.faults = [Fault("slow", point, seconds=120)]
    with writer(store, source) as process:
        wait_for(lambda: proxy.done["slow"] == 1)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    if "uploadId" not in point:  # else the whole file may be there, or not
        assert [blob.size for blob in store.blobs()] == [2]
    for blob in store.blobs():
        store.verify({"left": {"sha256": blob.sha256, "size": blob.size}})
    manifest = store.put(source)
    assert same(store.get(manifest, tmp_path / "out"), source)
    for left in store.unfinished():
        store.discard(left)
    store.verify(manifest)


def test_two_writers_of_the_same_files(store: Store, source: Path, tmp_path: Path, proxy: Proxy) -> None:
    proxy.faults = [Fault("slow", "PUT .*partNumber=4", seconds=1, times=2)]  # so that they overlap
    writers = [writer(store, source) for _ in range(2)]
    for process in writers:
        with process:
            process.communicate(timeout=600)
        assert process.returncode == 0
    assert sorted(blob.size for blob in store.blobs()) == [2, SIZE]
    assert list(store.unfinished()) == []
    assert same(store.get(store.put(source), tmp_path / "out"), source)


@pytest.fixture
def restarting(radosgw_server) -> Iterator[Callable[[], None]]:
    """A function that kills all of the server with SIGKILL and starts it again."""

    def restart() -> None:
        radosgw_server.control("kill")
        radosgw_server.control("start")

    yield restart
    radosgw_server.control("start")


@pytest.mark.slow
@pytest.mark.parametrize("action", ["put", "get"])
def test_server_may_die_and_come_back(
    action: str, restarting, radosgw_server, use_server, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(12 * PART))
    with Proxy(radosgw_server.endpoint.removeprefix("http://")) as proxy:
        store = open_store(use_server(radosgw_server, METAFLOW_S3_ENDPOINT_URL=proxy.endpoint))
        request = "PUT .*partNumber" if action == "put" else "GET .*sha256"
        manifest = store.put(source) if action == "get" else None
        proxy.faults = [Fault("slow", request, times=99, seconds=0.2)]
        killer = threading.Thread(target=lambda: (wait_for(lambda: proxy.done["slow"] >= 4), restarting()))
        killer.start()
        try:
            manifest = manifest or store.put(source)
            store.get(manifest, tmp_path / "out")
        finally:
            killer.join()
        proxy.faults = []
        store.verify(manifest)
        s3_client.client_for.cache_clear()
    assert same(tmp_path / "out", source)


@pytest.mark.slow
def test_what_was_stored_survives_the_death_of_the_server(restarting, radosgw_server, use_server, source: Path) -> None:
    store = open_store(use_server(radosgw_server))
    manifests = []
    for number in range(3):
        (source / "more").write_bytes(os.urandom(PART + number))
        manifests.append(store.put(source))
        restarting()
    for manifest in manifests:
        store.verify(manifest)
    shutil.rmtree(source)
