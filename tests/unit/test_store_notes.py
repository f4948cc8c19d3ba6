"""Notes that are damaged, empty or no files: each is named, nothing waits for it, and nothing is removed."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import Manifest, Store, open_store
from components.store import __main__ as command
from components.store.housekeeping import DAY, garbage, remove
from components.store.references import uses

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
from support.housekeeping import client_sees, finished, leave_note, make_old, put, sha

pytestmark = pytest.mark.thorough


@pytest.fixture
def store(tmp_path: Path, monkeypatch) -> Store:
    (tmp_path / ".metaflow").mkdir()
    client_sees(tmp_path, tmp_path / "cache", monkeypatch)
    return open_store(str(tmp_path / "wind_store"))


@pytest.fixture
def files(store: Store, tmp_path: Path) -> list[Manifest]:
    """Of 40 days ago: one that a run of today needs, with a note of it, and one that another run of today needs."""
    found = [put(store, tmp_path, name, name.encode()) for name in ("known", "needed")]
    for manifest in found:
        make_old(store, manifest, 40)
    leave_note(store, "Flow/1", {"policy": [found[0]]})
    return found


def whole(kind: str, manifest: Manifest) -> dict[str, object]:
    started = dict.fromkeys(("policy", "prompts", "evaluated"), manifest)
    task = {"run": "Flow/2", "task": "train/3", "origin": None, "process": {}, "launcher": None, "ended": True}
    return {
        "task": {**task, "files": {"policy": [manifest]}},
        "finished": finished("Flow/2", manifest),
        "compared": {"run": "Flow/2", "started": started, "policies": [manifest]},
        "training": manifest,
        "benchmarks": {"scores": []},
    }[kind]


KINDS = ["task", "finished", "compared", "training", "benchmarks"]
NO_NOTES = ["", " ", "[]", "null", "3", '"x"', "{}", '{"a":1}', "{", '{"a":1,"a":1}', "[" * 100_000, "\x00"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_note_counts(store: Store, files: list[Manifest], kind: str) -> None:
    store.write_note(f"{kind}-2", json.dumps(whole(kind, files[1])))
    assert (sha(files[1]) in uses(store)) is (kind != "benchmarks")


def refused(store: Store, name: str) -> None:
    """Neither the reading nor the removal goes on, and the note is named."""
    kept = {blob.sha256 for blob in store.blobs()}
    for act in (uses, lambda store: remove(store, garbage(store, {}, 30 * DAY), 30 * DAY)):
        with pytest.raises(StoreError) as caught:
            act(store)
        assert name in str(caught.value)
        assert "Restore" in str(caught.value)
    assert {blob.sha256 for blob in store.blobs()} == kept


@pytest.mark.parametrize("text", NO_NOTES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_note_stops_the_removal(store: Store, files: list[Manifest], kind: str, text: str) -> None:
    store.write_note(f"{kind}-2", text)
    refused(store, f"{store.root}/notes/{kind}-2")


BAD = ["x", 3, None, [], {}, {"file": {"sha256": "zz", "size": 3}}, {"file": {"sha256": "0" * 64}}, {"file": None}]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("finished", ["policy"]),
        ("finished", ["history"]),
        ("finished", ["started", "prompts"]),
        ("compared", ["started", "evaluated"]),
        ("compared", ["policies", 0]),
        ("task", ["files", "policy", 0]),
        ("training", ["known"]),
    ],
)
def test_a_malformed_manifest_stops_the_removal(store: Store, files: list[Manifest], kind: str, keys, value) -> None:
    note = json.loads(json.dumps(whole(kind, files[1])))
    inner = note
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    store.write_note(f"{kind}-2", json.dumps(note))
    refused(store, f"{kind}-2")


@pytest.mark.parametrize("key", ["run", "task", "process", "ended", "files"])
def test_each_part_of_a_task_note_is_needed(store: Store, files: list[Manifest], key: str) -> None:
    note = whole("task", files[1])
    for broken in ({name: value for name, value in note.items() if name != key}, {**note, key: 3}):
        store.write_note("task-2", json.dumps(broken))
        refused(store, f"task-2 cannot be read ({key} is missing or not what it must be)")


def test_a_note_of_no_kind_stops_the_removal(store: Store, files: list[Manifest]) -> None:
    store.write_note("copy of task-2", json.dumps(whole("task", files[1])))
    refused(store, "copy of task-2 cannot be read (no kind of note has such a name)")


def make_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def make_circle(path: Path) -> None:
    path.symlink_to(path)


def make_binary(path: Path) -> None:
    path.write_bytes(bytes(range(128, 256)))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, make_dangling, make_circle, make_binary])
def test_a_note_that_is_no_file_stops_the_removal(store: Store, files: list[Manifest], make) -> None:
    path = Path(store.root, "notes", "task-2")
    make(path)
    with pytest.raises(StoreError, match=str(path)):
        store.read_note("task-2")
    with pytest.raises(StoreError, match=str(path)):
        uses(store)


def test_a_note_that_has_gone_counts_as_none(store: Store, files: list[Manifest], monkeypatch) -> None:
    """Removed between the listing and the reading."""
    store.write_note("task-2", json.dumps(whole("task", files[1])))
    listed = list(store.notes())
    store.remove_note("task-2")
    monkeypatch.setattr(type(store), "notes", lambda _: iter(listed))
    assert store.read_note("task-2") is None
    assert list(uses(store)) == [sha(files[0])]


def test_files_of_the_file_system_are_no_notes(store: Store, files: list[Manifest]) -> None:
    Path(store.root, "notes", ".nfs0001").write_text("half a no")
    assert list(uses(store)) == [sha(files[0])]


@pytest.fixture
def said(store: Store, capsys) -> Callable[..., tuple[str, str]]:
    """`said("ls", …)`: what the command prints, as it fails, and where errors go."""

    def run(*arguments: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            command.main([*arguments, "--root", store.root])
        out, err = capsys.readouterr()
        assert ended.value.code not in (0, None)
        return out, err + (ended.value.code if isinstance(ended.value.code, str) else "")

    return run


@pytest.mark.parametrize("text", ["", "[]", '{"run":"Flow/2","files":"x"}'])
def test_commands_name_the_note_and_only_gc_stops(store: Store, files: list[Manifest], said, text: str) -> None:
    store.write_note("task-2", text)
    for action in ("ls", "du", "verify"):
        out, error = said(action)
        assert "Flow/1" in out or "2 files read, 0 of them missing" in out
        assert "the note task-2 cannot be read" in error
    for words in (["gc", "--older-than", "30d"], ["gc", "--older-than", "30d", "--delete"]):
        out, error = said(*words)
        assert "the note task-2 cannot be read" in error
        assert "removed" not in out
    assert {blob.sha256 for blob in store.blobs()} == {sha(manifest) for manifest in files}


def test_an_empty_blob_that_became_a_pipe_is_named(store: Store, tmp_path: Path, files: list[Manifest], said) -> None:
    empty = put(store, tmp_path, "empty", b"")
    path = Path(store.locate(sha(empty)))
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: is no file" in said("verify")[0]
