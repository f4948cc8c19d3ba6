"""How tests are collected, and S3 servers for those that need one: radosgw where it is installed, else moto."""

from __future__ import annotations

import fcntl
import gc
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).parents[1] / "infra" / "s3" / "server"
MOTO = {
    "AWS_ACCESS_KEY_ID": "anyone",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
    "METAFLOW_DATASTORE_SYSROOT_S3": "s3://wind/metaflow",
}

MODELS = re.compile(r"^(from|import) (transformers|peft|support\.models)\b", re.MULTILINE)
# It says which port it listens on: one that somebody else chose could be taken by then.
STAND_IN = """
import contextlib, sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0)
with contextlib.redirect_stdout(sys.stderr):
    server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""


@dataclass
class S3Server:
    """A running server with an empty bucket `wind`."""

    env: dict[str, str]  # what Metaflow and boto3 need to find it
    folder: Path | None = None  # of radosgw; None for moto, which keeps nothing

    @property
    def endpoint(self) -> str:
        return self.env["METAFLOW_S3_ENDPOINT_URL"]

    def control(self, action: str) -> str:
        """infra/s3/server ACTION."""
        command = [sys.executable, str(SERVER), action, "--dir", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers `--every-kill`."""
    parser.addoption("--every-kill", action="store_true", help="run the tests that kill runs for a long time")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What the tests import stays to the end: nothing is gained by looking for garbage in it, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """transformers is imported as the project does it, without libraries that would take half of the time."""
    if "transformers" not in sys.modules and MODELS.search(module_path.read_text("utf-8")):
        importlib.import_module("components.policy.library")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is `thorough(but=[…])`, members with one of these in their id belong to every run."""
    for item in items:
        for mark in [mark for mark in item.own_markers if mark.name == "thorough" and mark.kwargs]:
            if {item.callspec.id, *item.callspec.id.split("-")} & {*mark.kwargs["but"]}:
                item.own_markers.remove(mark)


@pytest.fixture(scope="session")
def every_kill(request: pytest.FixtureRequest) -> None:
    """For tests that `make test` has no time for."""
    if not request.config.getoption("--every-kill"):
        pytest.skip("make test-faults runs these")


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Of all processes that test on this machine, one at a time is in a block of this name."""
    with (Path(tempfile.gettempdir()) / f"wind-tests-{os.getuid()}-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def radosgw(folder: Path) -> Iterator[S3Server]:
    """A server of its own in `folder`, gone with its data afterwards; a skip where Ceph is not installed."""
    missing = [name for name in ("radosgw", "ceph-osd", "ceph-mon") if not shutil.which(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: run `infra/s3/server install` as root")
    server = S3Server({}, folder)
    try:
        with alone("s3-start"):  # it looks for free ports, and listens a moment later
            server.control("start")
        words = server.control("env").replace("export ", "").split()
        server.env.update(word.split("=", 1) for word in words)
        yield server
    finally:
        server.control("kill")
        shutil.rmtree(folder)


def moto(folder: Path) -> Iterator[S3Server]:
    """moto's server: the protocol, in memory."""
    pytest.importorskip("moto.server", reason="needs moto: pip install -r requirements-dev.txt")
    with (folder / "moto.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", STAND_IN], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout
    with process.stdout as said:
        port = said.readline().strip()
    try:
        assert port, (folder / "moto.log").read_text()
        endpoint = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/wind", method="PUT"), timeout=120).close()
        yield S3Server({**MOTO, "METAFLOW_S3_ENDPOINT_URL": endpoint})
    finally:
        process.kill()
        process.wait()


def _wait_for(done: Callable[[], bool], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """`wait_for(done, seconds=120)`: until done() is true; AssertionError if that takes longer."""
    return _wait_for


@pytest.fixture(scope="session")
def radosgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that keeps its data; tests may kill it and have to start it again."""
    yield from radosgw(tmp_path_factory.mktemp("rgw"))


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that is always there, and forgets."""
    yield from moto(tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """radosgw where it is installed, else moto's."""
    return request.getfixturevalue("radosgw_server" if shutil.which("radosgw") else "moto_server")


@pytest.fixture
def use_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`use_server(server, **env)`: makes this process talk to `server`; the root of a store that is the test's own."""
    from components.store import s3_client

    def use(server: S3Server, **changed: str) -> str:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**server.env, **changed}.items():
            monkeypatch.setenv(name, value)
        s3_client.client_for.cache_clear()
        return f"s3://wind/{uuid.uuid4().hex}/wind_store"

    yield use
    s3_client.client_for.cache_clear()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """`undisturbed(algorithm)`: what a run of `Home` with FOUR_STEPS ends with, from its stages in one process.

    Its manifests hold hashes of files: they are every datastore's.
    """
    from support.flows import by_stages
    from support.flows.flow_home import FOUR_STEPS, RESULT, config_of

    @cache
    def ends(algorithm: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(f"undisturbed-{algorithm}", numbered=False)
        config = config_of(FOUR_STEPS | {"algorithm": {"name": algorithm}})
        found = vars(by_stages.undisturbed(config, folder / "wind_store"))
        return {name: found[name] for name in RESULT}

    return ends


@pytest.fixture
def s3_root(s3_server: S3Server, use_server: Callable[..., str]) -> str:
    """Root of a store of the test's own on `s3_server`, which this process talks to."""
    return use_server(s3_server)
