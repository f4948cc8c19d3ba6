"""`wind store` on a local store, notes of tasks, and real runs of a small flow."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.config.errors import StoreError
from components.store import FileEntry, Store, open_store
from components.store import __main__ as command
from components.store.housekeeping import DAY, damages, garbage, remove, run_sizes
from components.store.references import Use, uses
from components.store.task_notes import STORED, Task, noted

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
from support.housekeeping import NOW, Home, client_sees, finished, leave_note, make_old, put, sha, two_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Home:
    return two_runs(tmp_path_factory.mktemp("home"))


@pytest.fixture
def see(tmp_path: Path, monkeypatch) -> Callable[[Path], None]:
    """`see(folder)`: Metaflow's client in this process knows the runs of that folder, and the process goes there."""
    return partial(client_sees, cache=tmp_path / "cache", monkeypatch=monkeypatch)


@pytest.fixture
def home(runs: Home, see: Callable[[Path], None]) -> Home:
    """The same, seen by Metaflow's client in this process, with the working directory there."""
    see(runs.path)
    return runs


@pytest.fixture
def said(home: Home, capsys):
    """`said("ls", …)`: what the command prints about this store, without its first line, and its exit status."""

    def run(*arguments: str) -> tuple[list[str], Any]:
        with pytest.raises(SystemExit) as ended:
            command.main([*arguments, "--root", home.store.root])
        head, _, rest = capsys.readouterr().out.partition("\n\n")
        assert head in ("", home.store.root)
        return rest.splitlines(), ended.value.code

    return run


def test_ls_tells_sizes_ages_and_who_needs_a_file(home: Home, said) -> None:
    lines, status = said("ls")
    assert not status
    assert lines[0].split() == ["file", "size", "age", "needed", "by"]
    rows = {line[:16]: re.split("  +", line)[1:] for line in lines[1:]}
    files = {name: sha(manifest)[:16] for name, manifest in home.files.items()}
    assert rows == {
        files["shared"]: ["1 kB", "40 d", f"{home.second} policy: shared and 1 more"],
        files["one"]: ["20 B", "40 d", f"{home.first} deep: one"],
        files["two"]: ["300 B", "0 h", f"{home.second} rollouts: two"],
        files["stray"]: ["4 kB", "40 d", "no run"],
        files["new"]: ["50 kB", "0 h", "no run"],
    }


def test_du_counts_each_file_once_a_run(home: Home, said) -> None:
    lines, status = said("du")
    assert not status
    rows = [re.split("  +", line) for line in lines]
    assert rows[:3] == [
        ["run", "active", "files", "size", "not shared"],
        [home.second, "0 h", "2", "1.3 kB", "300 B"],
        [home.first, "0 h", "2", "1.02 kB", "20 B"],
    ]
    assert lines[-3:] == [
        f"{home.store.root} holds 5 files, 55.3 kB",
        "of these no run needs 2, 54 kB",
        "unfinished: 0",
    ]


def test_verify_names_what_is_damaged_or_missing(home: Home, said) -> None:
    assert said("verify") == (["5 files read, 0 of them missing or damaged"], 0)
    stray, one = (Path(home.store.locate(sha(home.files[name]))) for name in ("stray", "one"))
    kept = stray.read_bytes()
    stray.chmod(0o644)
    stray.write_bytes(b"x" * 4000)
    one.rename(f"{one}-away")
    try:
        lines, status = said("verify")
        assert status == 1
        assert lines[0].startswith(f"{home.first} deep: one: the stored {one} is missing")
        assert lines[1].startswith(f"used by no run: the stored {stray} is damaged")
        assert lines[2] == "5 files read, 2 of them missing or damaged"
        assert said("verify", home.second) == (["2 files read, 0 of them missing or damaged"], 0)
        assert said("verify", home.first)[1] == 1
    finally:
        stray.write_bytes(kept)
        make_old(home.store, home.files["stray"], 40)
        Path(f"{one}-away").rename(one)
    assert "refers to no file" in said("verify", "Tiny/none")[1]


def test_verify_gives_the_command_that_heals(store: Store, tmp_path: Path) -> None:
    manifest = put(store, tmp_path, "file", b"any")
    with noted(store, Task("CompareFlow/7", "train_2/31"), lambda: {STORED: [manifest]}):
        pass
    leave_note(store, "CompareFlow/7", {"policy": [manifest]})
    Path(store.locate(sha(manifest))).unlink()
    [said] = damages(store, uses(store))
    assert said
    assert said.splitlines()[-1] == "  python flows/compare_flow.py resume train_2 --origin-run-id 7"


def test_gc_tells_first_and_removes_what_is_old_and_unneeded(home: Home, said) -> None:
    lines, _ = said("gc", "--older-than", "30d")
    stray = sha(home.files["stray"])
    assert re.split("  +", lines[1]) == [stray[:16], "4 kB", "40 d", "no run"]
    assert lines[2:] == ["1 files, 4 kB, 0 unfinished ones and 0 notes: would be removed; `--delete` does it"]
    assert home.store.find(stray)
    assert said("gc", "--older-than", "6w")[0] == [
        "0 files, 0 B, 0 unfinished ones and 0 notes: would be removed; `--delete` does it"
    ]
    try:
        lines, status = said("gc", "--older-than", "30d", "--delete")
        assert not status
        assert lines[-1] == "1 files, 4 kB, 0 unfinished ones and 0 notes: removed"
        assert home.store.find(stray) is None
        assert {blob.sha256 for blob in home.store.blobs()} == {sha(m) for n, m in home.files.items() if n != "stray"}
    finally:
        make_old(home.store, put(home.store, home.path, "stray", b"s" * 4000), 40)


def test_what_others_wrote_does_not_control_the_terminal(store: Store, tmp_path: Path, capsys) -> None:
    manifest = put(store, tmp_path, "file", b"any")
    leave_note(store, "Flow/1\x1b[2J", {"\x1b]0;name\x07": [manifest]})
    for action in ("ls", "du"):
        with pytest.raises(SystemExit):
            command.main([action, "--root", store.root])
    said = capsys.readouterr().out
    assert "Flow/1\\x1b[2J" in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)


def test_young_files_are_not_to_be_removed(said) -> None:
    assert "must be at least 1d" in said("gc", "--older-than", "23h", "--delete")[1]


def test_ages_are_read(capsys) -> None:
    assert [command.seconds(text) for text in ("12h", "30d", "4w")] == [43200, 2592000, 2419200]
    with pytest.raises(SystemExit):
        command.main(["gc", "--older-than", "30"])
    assert "'30' is not an age such as 12h, 30d or 4w" in capsys.readouterr().err


def test_sizes_are_readable() -> None:
    sizes = [0, 999, 1000, 1234, 999_499, 999_500, 5_000_000_000, 2_000_000_000_000]
    assert [command.human(size) for size in sizes] == [
        *("0 B", "999 B", "1 kB", "1.23 kB", "999 kB", "1 MB", "5 GB", "2 TB"),
    ]


def test_store_is_that_of_the_datastore_used_from_here(home: Home, tmp_path, monkeypatch) -> None:
    assert command.default_root("local") == str(home.path / "wind_store")
    monkeypatch.setattr("metaflow.plugins.datastores.s3_storage.DATASTORE_SYSROOT_S3", "s3://bucket/team/metaflow")
    assert command.default_root("s3") == "s3://bucket/team/wind_store"
    monkeypatch.setattr("metaflow.plugins.datastores.s3_storage.DATASTORE_SYSROOT_S3", None)
    with pytest.raises(StoreError, match="the s3 datastore has no place here"):
        command.default_root("s3")


def test_store_that_no_known_run_uses_is_left_alone(home: Home, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    manifest = put(other, tmp_path, "file", b"any")
    make_old(other, manifest, 40)
    found = garbage(other, {}, 30 * DAY)
    assert [blob.sha256 for blob in found.blobs] == [sha(manifest)]
    with pytest.raises(StoreError, match="no run has left a note of a file in it"):
        remove(other, found, 30 * DAY)
    assert other.find(sha(manifest))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "wind_store"))


def test_notes_tell_who_needs_a_file_until_they_are_old(home: Home, store: Store, tmp_path: Path) -> None:
    """Of a run that Metaflow's client does not know here, and of training that was killed."""
    files = {name: put(store, tmp_path, name, name.encode()) for name in ("policy", "old policy", "half", "old half")}
    notes = {
        "finished-F-1": (finished("F/1", files["policy"]), 29),
        "finished-F-2": (finished("F/2", files["old policy"]), 31),
        "training-1": (files["half"], 29),
        "training-2": (files["old half"], 31),
    }
    for name, (content, days) in notes.items():
        store.write_note(name, json.dumps(content))
        moment = NOW - days * DAY
        os.utime(Path(store.root, "notes", name), (moment, moment))
    for manifest in files.values():
        make_old(store, manifest, 31, NOW)
    used = uses(store)
    assert {used[sha(files[name])][0].run for name in ("policy", "half")} == {"F/1", "unfinished training"}
    found = garbage(store, used, 30 * DAY, NOW)
    assert {blob.sha256 for blob in found.blobs} == {sha(files["old policy"]), sha(files["old half"])}
    removed = remove(store, found, 30 * DAY, now=NOW)
    assert len(removed.blobs) == 2
    assert sorted(note.name for note in store.notes()) == ["finished-F-1", "training-1"]


def test_run_sizes_by_hand() -> None:
    a, b = FileEntry(sha256="a" * 64, size=10), FileEntry(sha256="b" * 64, size=5)
    used = {
        "a" * 64: [
            Use("F/2", 2.0, "policy", "x", a),
            Use("F/1", 1.0, "policy", "x", a),
            Use("F/1", 1.0, "old", "y", a),
        ],
        "b" * 64: [Use("F/1", 1.0, "rollouts", "z", b)],
    }
    assert [(s.run, s.files, s.size, s.alone) for s in run_sizes(used)] == [("F/2", 1, 10, 0), ("F/1", 2, 15, 5)]
