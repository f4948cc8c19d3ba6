"""Which runs count as active: by their tasks' notes and processes, and those that they were resumed from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.store import FileEntry, Manifest, Store, base, open_store
from components.store.housekeeping import DAY, Garbage, damages, garbage
from components.store.references import manifests, uses
from components.store.task_notes import SILENT, Task, noted

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
from support.housekeeping import leave_note, make_note_old, make_old, put, sha


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "wind_store"))


def kept_by(store: Store, days: float = 30) -> set[str]:
    """SHA-256 of what is not garbage."""
    gone = garbage(store, uses(store), days * DAY)
    return {blob.sha256 for blob in store.blobs()} - {blob.sha256 for blob in gone.blobs}


def test_a_task_that_runs_is_active_however_long_ago_it_began(store: Store, tmp_path: Path) -> None:
    """Its input and what it has stored so far; its note is never removed."""
    files = {name: put(store, tmp_path, name, name.encode()) for name in ("input", "made", "other")}
    kept = [files["input"]]
    task = Task("Flow/1", "train/7")
    for manifest in files.values():
        make_old(store, manifest, 40)
    with noted(store, task, lambda: {"files": kept}) as tell:
        make_note_old(store, task, 40)
        assert kept_by(store) == {sha(files["input"])}
        kept.append(files["made"])
        tell()
        make_note_old(store, task, 40)
        assert kept_by(store) == {sha(files["input"]), sha(files["made"])}
        assert garbage(store, uses(store), 30 * DAY).notes == []
    make_note_old(store, task, 29)
    assert kept_by(store) == {sha(files["input"]), sha(files["made"])}
    make_note_old(store, task, 31)
    assert kept_by(store) == set()


RUNNING = """
import os, sys
from components.store import open_store
from components.store.task_notes import Task, noted
store = open_store(sys.argv[1])
manifest = {"file": {"sha256": sys.argv[2], "size": 5}}
launcher = os.getpid() if sys.argv[3] == "launcher" else None
with noted(store, Task("Flow/1", "train/7", launcher=launcher), lambda: {"policy": [manifest]}):
    if not launcher:
        print("runs", flush=True)
        sys.stdin.read()
if launcher:  # between two tasks
    print("runs", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["task", "launcher"])
def test_a_run_is_active_while_its_process_lives(store: Store, tmp_path: Path, what: str) -> None:
    manifest = put(store, tmp_path, "file", b"input")
    make_old(store, manifest, 40)
    command = [sys.executable, "-c", RUNNING, store.root, sha(manifest), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "runs\n"
        make_note_old(store, Task("Flow/1", "train/7"), 40)
        assert kept_by(store) == {sha(manifest)}
        process.kill()
    assert kept_by(store) == set()


def test_a_task_on_another_machine_is_active_until_it_has_long_been_silent(store: Store, tmp_path: Path) -> None:
    manifest = put(store, tmp_path, "file", b"input")
    make_old(store, manifest, 40)
    task = Task("Flow/1", "train/7")
    with noted(store, task, lambda: {"policy": [manifest]}):
        pass
    content = json.loads(store.read_note(task.note) or "")
    content["process"]["machine"] = "another"
    for ended, days, active in [(False, 2, True), (False, SILENT / DAY + 1, False), (True, 2, False)]:
        store.write_note(task.note, json.dumps({**content, "ended": ended}))
        make_note_old(store, task, days)
        assert kept_by(store, days=1) == ({sha(manifest)} if active else set())


def test_a_run_that_is_resumed_is_active_with_all_that_it_was_resumed_from(store: Store, tmp_path: Path) -> None:
    files = {name: put(store, tmp_path, name, name.encode()) for name in ("first", "second", "other")}
    for manifest in files.values():
        make_old(store, manifest, 40)
    leave_note(store, "Flow/1", {"policy": [files["first"]]}, days=40)
    leave_note(store, "Flow/2", {"policy": [files["second"]]}, days=35, origin="Flow/1")
    leave_note(store, "Flow/9", {"policy": [files["other"]]}, days=40)
    assert kept_by(store) == set()
    leave_note(store, "Flow/3", {}, origin="Flow/2")
    assert kept_by(store) == {sha(files["first"]), sha(files["second"])}


def test_a_note_is_renewed_while_the_task_runs(store: Store, monkeypatch, wait_for) -> None:
    monkeypatch.setattr("components.store.task_notes.BEAT", 0.05)
    task = Task("Flow/1", "train/7")
    with noted(store, task, dict):
        path = make_note_old(store, task, 40)
        wait_for(lambda: time.time() - path.stat().st_mtime < DAY)


def test_put_renews_an_old_file_and_not_a_young_one(store: Store, tmp_path: Path) -> None:
    manifest = put(store, tmp_path, "file", b"any")
    for seconds, renewed in [(base.REFRESH - 60, False), (base.REFRESH + 60, True)]:
        moment = time.time() - seconds
        os.utime(store.locate(sha(manifest)), (moment, moment))
        store.put_file(tmp_path / "file")
        blob = store.find(sha(manifest))
        assert blob
        assert (time.time() - blob.used < base.REFRESH / 2) is renewed


def test_damages_of_an_empty_store(store: Store) -> None:
    assert list(damages(store, {})) == []
    assert garbage(store, {}, DAY) == Garbage([], [], [])


ENTRY: FileEntry = {"sha256": "0" * 64, "size": 1}
ONE: Manifest = {"file": ENTRY}


@dataclass
class Started:
    policy: Manifest
    reward: float


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ONE, [ONE]),
        ([ONE, {"x": (ONE, None)}], [ONE, ONE]),
        ({("arm", 0): ONE}, [ONE]),
        (Started(ONE, 0.5), [ONE]),
        (Started, []),
        ({}, []),
        ({"file": {"sha256": "0" * 63, "size": 1}}, []),
        ({"file": ENTRY, "other": 1}, []),
        ("text", []),
        (None, []),
    ],
)
def test_manifests_are_found_wherever_they_are(value: object, expected: list[Manifest]) -> None:
    assert list(manifests(value)) == expected
