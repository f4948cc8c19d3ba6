"""Files, runs and notes of a store, as old as tests want them."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.store import Manifest, Store, open_store
from components.store.housekeeping import DAY
from components.store.task_notes import Task, noted

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.client import core
    from metaflow.plugins.datastores.local_storage import LocalStorage

NOW = 1_700_000_000.0
FLOW = """
import os
from functools import partial
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


def two_runs(home: Path) -> Home:
    """Both runs use `shared`, each one file of its own, nested; nobody uses `stray` and `new`."""
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


def finished(run: str, manifest: Manifest) -> dict[str, Any]:
    """What the note of a finished run must hold, the same file wherever it names one."""
    started = dict.fromkeys(("policy", "prompts", "evaluated"), manifest)
    return {
        "run": run,
        "started": started,
        **dict.fromkeys(("policy", "optimizer", "evaluated", "history"), manifest),
    }


def make_note_old(store: Store, task: Task, days: float) -> Path:
    path = Path(store.root, "notes", task.note)
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    return path


def client_sees(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [("current_namespace", False), ("current_metadata", False), ("filecache", None)]:
        monkeypatch.setattr(core, name, value)
    monkeypatch.setattr(LocalStorage, "datastore_root", None)
    monkeypatch.setattr("metaflow.client.filecache.CLIENT_CACHE_PATH", str(cache))
    core.metadata(f"local@{folder}")
    monkeypatch.chdir(folder)
