"""What each task of a run leaves in the store: a note of the files that it needs and makes, renewed while it runs.

The house-keeping reads these instead of artifacts: another user's artifacts are pickled, so that reading them would run
their code, and Metaflow's client knows neither the runs of other machines nor those of Argo without a metadata service.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from components.config.errors import StoreError
from components.runtime import processes
from components.store.base import Store
from components.store.records import Manifest

TASK = "task-"  # begins the names of these notes
STORED = "stored"  # what a task calls the files that it has stored itself
BEAT = 3600.0  # seconds after which a task that runs renews its note
SILENT = 7 * 24 * 3600.0  # seconds without that after which a task of which nothing else is known has ended

Files = Mapping[str, Sequence[Manifest]]  # by what the task calls them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Which task it is."""

    run: str  # FLOW/RUN
    name: str  # its own within the run
    origin: str | None = None  # the run of which `run` is a resume: what that left may be needed again
    launcher: int | None = None  # process id, on this machine, of what starts the run's tasks

    @property
    def note(self) -> str:
        """The note's name: short, whatever a cluster calls its runs."""
        return TASK + hashlib.sha256(f"{self.run} {self.name}".encode()).hexdigest()


@contextmanager
def noted(store: Store, task: Task, files: Callable[[], Files]) -> Iterator[Callable[[], None]]:
    """Keeps a task's note while the block runs: that it runs, and what `files` says. Gives what writes it anew.

    Raises as `Store.write_note` when the note cannot be written at the begin or the end.
    """
    about = {"run": task.run, "task": task.name, "origin": task.origin, "process": processes.identity()}
    about |= {"launcher": None if task.launcher is None else processes.identity(task.launcher)}

    def write(ended: bool = False) -> None:
        store.write_note(task.note, json.dumps({**about, "ended": ended, "files": files()}))

    write()
    done = threading.Event()
    beat = threading.Thread(target=_renew, args=(write, done), name="task-note", daemon=True)
    beat.start()
    try:
        yield write
    finally:
        done.set()
        beat.join()
        write(ended=True)


def _renew(write: Callable[[], None], done: threading.Event) -> None:
    while not done.wait(BEAT):
        try:
            write()
        except (StoreError, OSError) as error:  # the task itself will say so if that lasts
            logger.warning("the task's note could not be renewed. %s", error)


def runs_now(content: Mapping[str, object], age: float) -> bool:
    """Whether the task of a note, written `age` seconds ago, may be running, or the launcher about to start the next.

    One of another machine counts as running until it has been SILENT: it may have no way to the store for a while.
    """
    if processes.state(content.get("launcher")) == "alive":
        return True
    if content.get("ended") is not False:
        return False
    state = processes.state(content.get("process"))
    return state == "alive" or (state == "unknown" and age < SILENT)
