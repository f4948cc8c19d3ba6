"""`wind store` on a local store, notes of tasks, and real runs of a small flow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.config.errors import StoreError
from components.store import FileEntry, Manifest, Store, base, open_store
from components.store import __main__ as command
from components.store.housekeeping import DAY, Garbage, damages, garbage, remove, run_sizes
from components.store.references import Use, manifests, uses
from components.store.task_notes import SILENT, STORED, Task, noted

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.client import core
    from metaflow.plugins.datastores.local_storage import LocalStorage

NOW = 1_700_000_000.0

FLOW = """
import os
from pathlib import Path
from metaflow import FlowSpec, step


class Trap:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["SPRUNG"]),)


class Tiny(FlowSpec):
    @step
    def start(self):
        self.store_root = os.environ["STORE_ROOT"]
        self.trap = Trap()
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Tiny()
"""


def put(store: Store, folder: Path, name: str, content: bytes) -> Manifest:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return store.put_file(path)


def make_old(store: Store, manifest: Manifest, days: float, now: float | None = None) -> None:
    moment = (time.time() if now is None else now) - days * DAY
    for entry in manifest.values():
        os.utime(store.locate(entry["sha256"]), (moment, moment))


def sha(manifest: Manifest) -> str:
    (entry,) = manifest.values()
    return entry["sha256"]


@dataclass
class Home:
    """Two runs and the files of their store."""

    path: Path
    store: Store
    files: dict[str, Manifest]
    first: str
    second: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Home:
    """Both runs use `shared`, each one file of its own, nested; nobody uses `stray` and `new`."""
    home = tmp_path_factory.mktemp("home")
    (home / ".metaflow").mkdir()
    (home / "tiny.py").write_text(FLOW)
    store = open_store(str(home / "wind_store"))
    sizes = {"shared": 1000, "one": 20, "two": 300, "stray": 4000, "new": 50_000}
    files = {name: put(store, home, name, name[0].encode() * size) for name, size in sizes.items()}
    needed = [
        {"policy": [files["shared"]], "deep": [files["one"]]},
        {"policy": [{**files["shared"], "copy": files["shared"]["shared"]}], "rollouts": [files["two"]]},
    ]
    for number, values in enumerate(needed, 1):
        leave_note(store, f"Tiny/{number}", values)
    for name in ("shared", "one", "stray"):
        make_old(store, files[name], 40)
    return Home(home, store, files, "Tiny/1", "Tiny/2")


def leave_note(store: Store, run: str, files: dict[str, list[Manifest]], *, days: float = 0, **about: Any) -> Path:
    """The note of a task that has ended, so many days ago; its file."""
    task = Task(run, "start/1", **about)
    with noted(store, task, lambda: files):
        pass
    return make_note_old(store, task, days)


def make_note_old(store: Store, task: Task, days: float) -> Path:
    path = Path(store.root, "notes", task.note)
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    return path


@pytest.fixture
def see(tmp_path: Path, monkeypatch) -> Callable[[Path], None]:
    """`see(folder)`: Metaflow's client in this process knows the runs of that folder, and the process goes there."""

    def see(folder: Path) -> None:
        for name, value in [("current_namespace", False), ("current_metadata", False), ("filecache", None)]:
            monkeypatch.setattr(core, name, value)
        monkeypatch.setattr(LocalStorage, "datastore_root", None)
        monkeypatch.setattr("metaflow.client.filecache.CLIENT_CACHE_PATH", str(tmp_path / "cache"))
        core.metadata(f"local@{folder}")
        monkeypatch.chdir(folder)

    return see


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
    assert "Flow/1?[2J" in said
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


@pytest.fixture(scope="module")
def noteless(tmp_path_factory) -> tuple[Path, str]:
    """A folder with the store of a run that left no note, and the run; reading its artifacts would make `sprung`."""
    home = tmp_path_factory.mktemp("noteless")
    (home / ".metaflow").mkdir()
    (home / "tiny.py").write_text(FLOW)
    env = {**os.environ, "METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local"}
    env |= {"METAFLOW_PROFILE": "", "USERNAME": "somebody", "METAFLOW_HOME": str(home)}
    env |= {"STORE_ROOT": str(home / "wind_store"), "SPRUNG": str(home / "sprung")}
    line = [sys.executable, "tiny.py", "--no-pylint", "run", "--run-id-file", "id"]
    subprocess.run(line, cwd=home, env=env, capture_output=True, check=True)
    return home, f"Tiny/{(home / 'id').read_text()}"


def test_a_run_without_a_note_stops_the_removal_and_its_artifacts_are_not_read(
    noteless: tuple[Path, str], see: Callable[[Path], None], tmp_path: Path
) -> None:
    home, run = noteless
    see(home)
    store = open_store(str(home / "wind_store"))
    old, kept = (put(store, tmp_path, name, name.encode()) for name in ("old", "kept"))
    make_old(store, old, 40)
    leave_note(store, "Tiny/2", {"policy": [kept]})
    found = garbage(store, uses(store), 30 * DAY)
    assert [blob.sha256 for blob in found.blobs] == [sha(old)]
    with pytest.raises(StoreError, match=rf"^{run}: has left no note of its files.* --forget {run}$"):
        remove(store, found, 30 * DAY)
    assert store.find(sha(old))
    assert remove(store, found, 30 * DAY, [run]).blobs == found.blobs
    assert not (home / "sprung").exists()


def test_a_run_without_a_note_on_another_store_does_not_matter(
    noteless: tuple[Path, str], see: Callable[[Path], None], store: Store, tmp_path: Path
) -> None:
    see(noteless[0])
    old, kept = (put(store, tmp_path, name, name.encode()) for name in ("old", "kept"))
    make_old(store, old, 40)
    leave_note(store, "Tiny/2", {"policy": [kept]})
    found = garbage(store, uses(store), 30 * DAY)
    assert [blob.sha256 for blob in remove(store, found, 30 * DAY).blobs] == [sha(old)]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00"])
def test_a_note_that_cannot_be_read_stops_everything(store: Store, text: str) -> None:
    store.write_note("task-1", text)
    with pytest.raises(StoreError, match=r"the note task-1 cannot be read .*Delete it"):
        uses(store)


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


def used_by(manifest: Manifest, run: str, days: float) -> dict[str, list[Use]]:
    """As if a run active `days` before NOW used the file."""
    ((name, entry),) = manifest.items()
    return {entry["sha256"]: [Use(run, NOW - days * DAY, "policy", name, entry)]}


def test_a_file_goes_when_it_and_its_runs_are_old(store: Store, tmp_path: Path) -> None:
    names = ["both old", "young run", "young file", "no run"]
    files = {name: put(store, tmp_path, name, name.encode()) for name in names}
    for name, manifest in files.items():
        make_old(store, manifest, 29 if name == "young file" else 31, NOW)
    used = used_by(files["both old"], "F/1", 31) | used_by(files["young run"], "F/2", 29)
    found = garbage(store, used, 30 * DAY, NOW)
    assert {blob.sha256 for blob in found.blobs} == {sha(files["both old"]), sha(files["no run"])}


def test_what_comes_into_use_meanwhile_stays(store: Store, tmp_path: Path, monkeypatch) -> None:
    names = ["old", "put again", "resumed", "kept"]
    files = {name: put(store, tmp_path, name, name.encode()) for name in names}
    for manifest in files.values():
        make_old(store, manifest, 31, NOW)
    found = garbage(store, used_by(files["kept"], "F/1", 1), 30 * DAY, NOW)
    assert len(found.blobs) == 3
    store.put_file(tmp_path / "put again")  # by a run that trained to the same weights
    again = used_by(files["kept"], "F/1", 1) | used_by(files["resumed"], "F/2", 0)
    monkeypatch.setattr("components.store.housekeeping.uses", lambda *_: again)
    removed = remove(store, found, 30 * DAY, now=NOW)
    assert [blob.sha256 for blob in removed.blobs] == [sha(files["old"])]
    assert {blob.sha256 for blob in store.blobs()} == {sha(files[name]) for name in names[1:]}


def test_put_during_the_removal_saves_the_file(store: Store, tmp_path: Path, monkeypatch) -> None:
    files = [put(store, tmp_path, name, name.encode()) for name in ("a", "b")]
    used = used_by(put(store, tmp_path, "c", b"c"), "F/1", 0)
    for manifest in files:
        make_old(store, manifest, 31, NOW)
    found = garbage(store, used, 30 * DAY, NOW)
    monkeypatch.setattr("components.store.housekeeping.uses", lambda *_: used)
    first, second = found.blobs
    delete = type(store).remove

    def removing(self: Store, sha256: str) -> None:
        for name in ("a", "b"):  # another process stores both while the first goes
            self.put_file(tmp_path / name)
        delete(self, sha256)

    monkeypatch.setattr(type(store), "remove", removing)
    assert remove(store, found, 30 * DAY, now=NOW).blobs == [first]
    assert store.find(second.sha256)


def test_unfinished_files_go_when_old(store: Store, tmp_path: Path, monkeypatch) -> None:
    kept = put(store, tmp_path, "kept", b"kept")
    make_old(store, kept, 0, NOW)
    scratch = Path(store.root, "tmp")
    for name, days in [("old", 31), ("young", 29)]:
        partial = scratch / f".wind-partial-{name}"
        partial.write_bytes(b"half")
        os.utime(partial, (NOW - days * DAY,) * 2)
    used = used_by(kept, "F/1", 0)
    monkeypatch.setattr("components.store.housekeeping.uses", lambda *_: used)
    found = garbage(store, used, 30 * DAY, NOW)
    assert [one.where for one in found.unfinished] == [str(scratch / ".wind-partial-old")]
    remove(store, found, 30 * DAY, now=NOW)
    assert [path.name for path in scratch.iterdir()] == [".wind-partial-young"]


def test_notes_tell_who_needs_a_file_until_they_are_old(home: Home, store: Store, tmp_path: Path) -> None:
    """Of a run that Metaflow's client does not know here, and of training that was killed."""
    files = {name: put(store, tmp_path, name, name.encode()) for name in ("policy", "old policy", "half", "old half")}
    notes = {
        "finished-F-1": ({"run": "F/1", "started": {"policy": files["policy"]}}, 29),
        "finished-F-2": ({"run": "F/2", "policy": files["old policy"]}, 31),
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
        wait_for(lambda: time.time() - path.stat().st_mtime < DAY, seconds=10)


def test_put_renews_an_old_file_and_not_a_young_one(store: Store, tmp_path: Path) -> None:
    manifest = put(store, tmp_path, "file", b"any")
    for seconds, renewed in [(base.REFRESH - 60, False), (base.REFRESH + 60, True)]:
        moment = time.time() - seconds
        os.utime(store.locate(sha(manifest)), (moment, moment))
        store.put_file(tmp_path / "file")
        blob = store.find(sha(manifest))
        assert blob
        assert (time.time() - blob.used < 30) is renewed


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
