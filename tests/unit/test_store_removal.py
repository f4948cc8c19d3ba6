"""Which files of a store may be removed: old ones that no run needs, whatever happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from components.config.errors import StoreError
from components.store import Manifest, Store, open_store
from components.store.housekeeping import DAY, garbage, refuse_unknown_names, remove
from components.store.references import Use, uses

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
from support.housekeeping import FLOW, NOW, client_sees, leave_note, make_old, put, sha


@pytest.fixture
def see(tmp_path: Path, monkeypatch) -> Callable[[Path], None]:
    """`see(folder)`: Metaflow's client in this process knows the runs of that folder, and the process goes there."""
    return partial(client_sees, cache=tmp_path / "cache", monkeypatch=monkeypatch)


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
    with pytest.raises(StoreError, match=rf"^--forget Tiny/9: there is no such run in .* without a note: {run}\.$"):
        refuse_unknown_names(store, uses(store), [run, "Tiny/9"])
    refuse_unknown_names(store, uses(store), [run, "Tiny/2"])
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
