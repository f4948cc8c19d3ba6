"""W&B's real client: offline, read back from its files; and online, against a stand-in for the server."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracked import ADDRESSES, FIGURES, FOLDERS, RUN, config, needs
from wandb_server import serving

from components.stages import tracking
from components.trackers import TrackerError
from components.trackers.wandb import _last

pytestmark = pytest.mark.thorough

KEY = "k" * 40


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a store."""
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return str(tmp_path / "store")


@pytest.mark.slow
@needs("wandb")
def test_wandb_offline(root: str, tmp_path: Path) -> None:
    for counts in ([0], [1], [1], [3], [3]):
        folder = told(root, counts, "offline")[0]["wandb"]
    assert folder == str(tmp_path / "store" / "trackers" / "wandb")
    records = [
        record for file in sorted(Path(folder).glob("offline-run-*/run-WindFlow-17.wandb")) for record in read(file)
    ]
    began = [record.run for record in records if record.HasField("run")]
    assert {(one.run_id, one.project, one.entity, one.display_name) for one in began} == {
        ("WindFlow-17", "mine", "us", RUN)
    }
    settings = {item.key: json.loads(item.value_json) for item in began[0].config.update}
    assert settings["algorithm.beta"] == 0.25
    points = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [point["_step"] for point in points] == [1, 2, 3]
    for name, values in FIGURES.items():
        assert [point[name] for point in points] == values
    assert all("kl" not in point for point in points)
    assert not any(record.HasField(kind) for record in records for kind in ("output", "output_raw", "stats"))
    assert not list(Path(folder).glob("*/files/requirements.txt"))
    assert not list(Path(folder).glob("*/files/wandb-metadata.json"))


@pytest.mark.parametrize("torn", [b"", b"\xff", b"two"])
def test_a_note_of_the_last_iteration_that_cannot_be_read(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    note = tmp_path / "WindFlow-17.last"
    assert _last(note) == -1
    assert not caplog.records
    note.write_bytes(torn)
    assert _last(note) == -1
    (warned,) = [record.getMessage() for record in caplog.records]
    assert f"{note} does not hold the number" in warned


@needs("wandb")
def test_a_torn_note_stops_no_run_and_is_replaced_in_one_step(root: str, tmp_path: Path) -> None:
    note = tmp_path / "store" / "trackers" / "wandb" / "WindFlow-17.last"
    note.parent.mkdir(parents=True)
    note.write_bytes(b"")
    os.link(note, tmp_path / "old")  # it would get the new number, too, were the file written into
    links, warned = told(root, [3], "offline")
    assert links["wandb"] == str(note.parent)
    assert f"{note} does not hold the number" in warned
    assert "wandb failed" not in warned
    assert (note.read_bytes(), (tmp_path / "old").read_bytes()) == (b"3", b"")
    points = [record for file in note.parent.glob("offline-run-*/*.wandb") for record in read(file)]
    assert sum(record.HasField("history") for record in points) == 3


def read(file: Path) -> list[Any]:
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, records, parts = file.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


@pytest.mark.slow
@needs("wandb")
def test_wandb_online(root: str) -> None:
    with serving() as server:
        for counts in ([0, 1], [1], [3], [3]):  # tasks of their own, the last two resumed
            links, warned = told(root, counts, WANDB_BASE_URL=server.address, HIDDEN="never to be sent")
            assert links["wandb"] == f"{server.address}/us/mine/runs/WindFlow-17"
            assert "trackers.0" not in warned
    assert server.runs == {"WindFlow-17"}
    assert server.config["algorithm.beta"]["value"] == 0.25
    assert [point["_step"] for point in server.points] == [1, 2, 3]
    for name, values in FIGURES.items():
        assert [point[name] for point in server.points] == values
    for kept in (socket.gethostname(), "never to be sent", sys.executable, KEY):
        assert kept not in server.said


@needs("wandb")
def test_a_client_of_wandb_that_dies(root: str) -> None:
    """Its service, a process of its own, does so when the server answers what it does not know."""
    with serving() as server:
        server.broken = True
        links, warned = told(root, [1], patience=10.0, WANDB_BASE_URL=server.address)
    assert links.keys() == {"metrics"}
    assert "trackers.0: wandb failed" in warned


@needs("wandb")
def test_a_server_of_wandb_that_is_away(root: str) -> None:
    links, warned = told(root, [1], patience=10.0, WANDB_BASE_URL="http://127.0.0.1:9")
    assert links.keys() == {"metrics"}
    assert "trackers.0: wandb failed" in warned
    assert KEY not in warned


def told(
    root: str, counts: list[int], mode: str = "online", patience: float = 200.0, **environment: str
) -> tuple[dict[str, str], str]:
    """Tells W&B in a process of its own, as a task does; the links and what was said. 0 begins the run.

    `patience` in seconds is that with its server, which answers at once where the machine is not too busy.
    """
    code = (
        "import json, tracked as t\n"
        "from components.stages import tracking\n"
        "from components.trackers import wandb\n"
        f"wandb.PATIENCE = {patience}\n"
        f"settings = t.config(name='wandb', project='mine', entity='us', mode={mode!r})\n"
        f"for n in {counts}:\n"
        f"    links = (tracking.log(settings, {root!r}, t.RUN, t.history(n), 0) if n else "
        f"tracking.begin(settings, {root!r}, t.RUN))\n"
        "print(json.dumps(links))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "WANDB_API_KEY": KEY, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@needs("wandb")
def test_wandb_without_a_key(root: str) -> None:
    with pytest.raises(TrackerError, match=r"trackers\.0\.mode: 'online' needs a key\. Run `wandb login`"):
        tracking.begin(config(name="wandb"), root, RUN)
