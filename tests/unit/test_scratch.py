"""Folders of processes that were killed go; those of living processes and of others stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.runtime import processes
from components.runtime.scratch import OWNER, UNOWNED, scratch
from support.flows.signals import HEARING

WORKING = """
import sys, time
from components.runtime.processes import end_in_order
from components.runtime.scratch import scratch
from pathlib import Path
{before}
with scratch("train", Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("large")
    print("ready", flush=True)
    {then}
"""


def working(parent: Path, before: str = "", then: str = "time.sleep(600)") -> subprocess.Popen[str]:
    command = [*HEARING, sys.executable, "-c", WORKING.format(before=before, then=then), str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def answer(process: subprocess.Popen[str]) -> None:
    """A line on its standard input, for which it waits."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def folders(parent: Path) -> list[str]:
    return [path.name.rpartition("-")[0] for path in parent.iterdir()]


def test_what_a_killed_process_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    with working(tmp_path) as killed, working(tmp_path) as living:
        killed.kill()
        killed.wait()
        assert folders(tmp_path) == ["wind-train"] * 2
        with scratch("score", tmp_path) as folder:
            assert sorted(folders(tmp_path)) == ["wind-score", "wind-train"]
            assert [path.name for path in folder.iterdir()] == [OWNER]
        living.kill()
    with scratch("score", tmp_path):
        pass
    assert folders(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_cleans_up(tmp_path: Path, number: int) -> None:
    with working(tmp_path, "end_in_order()") as process:
        process.send_signal(number)
        assert process.wait(120) == 128 + number
    assert folders(tmp_path) == []


def test_a_second_signal_does_not_stop_the_cleaning_up(tmp_path: Path) -> None:
    then = """
    try:
        print("sleeps", flush=True)
        time.sleep(600)
    finally:
        print("ends", flush=True)
        sys.stdin.readline()"""
    with working(tmp_path, "end_in_order()", then.strip()) as process:
        assert process.stdout and process.stdout.readline() == "sleeps\n"
        process.terminate()
        assert process.stdout.readline() == "ends\n"
        process.send_signal(signal.SIGINT)
        answer(process)
        assert process.wait(120) == 128 + signal.SIGTERM
    assert folders(tmp_path) == []


def test_a_process_that_goes_on_ends_all_the_same(tmp_path: Path) -> None:
    then = """
    while True:
        try:
            time.sleep(600)
        except SystemExit:
            pass"""
    with working(tmp_path, "end_in_order(grace=0.5)", then.strip()) as process:
        process.terminate()
        assert process.wait(120) == 128 + signal.SIGTERM


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); end_in_order()"
    with working(tmp_path, before, "sys.stdin.readline()") as process:
        process.send_signal(signal.SIGHUP)
        answer(process)
        assert process.wait(120) == 0


def test_others_folders_stay(tmp_path: Path) -> None:
    """Another machine's, one of an earlier version, a link, a file, and a new one; an old empty one goes."""
    gone = {**processes.identity(), "started": "0"}
    for name, owner in [("wind-a", {**gone, "machine": "another"}), ("wind-b", "no identity"), ("wind-e", gone)]:
        (tmp_path / name).mkdir()
        (tmp_path / name / OWNER).write_text(json.dumps(owner))
    (tmp_path / "wind-c").mkdir()
    (tmp_path / "wind-c" / "weights").write_text("large")
    (tmp_path / "wind-d").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / OWNER).write_text(json.dumps(gone))
    (tmp_path / "wind-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "wind-old").mkdir()
    (tmp_path / "wind-new").mkdir()
    for name in ("wind-old", "wind-c"):
        os.utime(tmp_path / name, (time.time() - UNOWNED - 60,) * 2)
    with scratch("score", tmp_path):
        pass
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["elsewhere", "wind-a", "wind-b", "wind-c", "wind-d", "wind-link", "wind-new"]
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [OWNER]


@pytest.mark.parametrize("owner", ["", '{"pid": 1', "[1]", "{}", '"text"', "null", b"\xff\xfe", "[" * 100_000, None])
def test_what_nobody_owns_goes_after_a_day(tmp_path: Path, owner: str | bytes | None) -> None:
    """A file of owners that was cut off, or, where nodes met, none at all; with what else is there."""
    for name in ("wind-meeting-new", "wind-meeting-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meeting").write_text("where")
        if owner is not None:
            (tmp_path / name / OWNER).write_bytes(owner if isinstance(owner, bytes) else owner.encode())
    os.utime(tmp_path / "wind-meeting-old", (time.time() - UNOWNED - 60,) * 2)
    with scratch("score", tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["wind-meeting-new"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_another_users_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "wind-a").mkdir()
    (tmp_path / "wind-a" / OWNER).write_text(json.dumps({**processes.identity(), "started": "0"}))
    os.chown(tmp_path / "wind-a", 65534, -1)
    with scratch("score", tmp_path):
        pass
    assert (tmp_path / "wind-a").is_dir()


def test_who_is_who() -> None:
    own = processes.identity()
    assert processes.state(own) == "alive"
    assert processes.state({**own, "started": "0"}) == "ended"
    assert processes.state({**own, "boot": "earlier"}) == "ended"
    assert processes.state({**own, "machine": "another"}) == "unknown"
    for value in (None, "text", {}, {**own, "pid": "1"}):
        assert processes.state(value) == "unknown"
