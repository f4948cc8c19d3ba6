"""Which runs need which blobs: manifests in notes.

Artifacts are never read: they are pickled, and whose they are runs code here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from components.config.errors import StoreError
from components.store.base import Store
from components.store.note_kinds import content_of
from components.store.records import FileEntry, Manifest, Note, is_entry
from components.store.task_notes import STORED, TASK, runs_now

UNFINISHED, COMPILED = "unfinished training", "compiled code of vLLM"  # of no run, or of any


@dataclass(frozen=True)
class Use:
    """A file in a manifest in a note."""

    run: str  # FLOW/RUN
    active: float  # when the run last did anything, infinity while a task of it runs; seconds since the epoch
    artifact: str  # what the run calls the manifest
    name: str
    entry: FileEntry
    note: str = ""  # name of the note
    stored_by: str | None = None  # step of the task that stored the file, if this is its note


@dataclass(frozen=True)
class _Read:
    """A note as it was read."""

    note: Note
    content: Mapping[str, Any]

    @property
    def run(self) -> str:
        run = self.content.get("run")
        if isinstance(run, str):
            return run
        return COMPILED if self.note.name.startswith("compiled-") else UNFINISHED

    @property
    def step(self) -> str | None:
        """The task's step."""
        task = self.content.get("task")
        return task.partition("/")[0] if isinstance(task, str) else None

    @property
    def active(self) -> float:
        if self.note.name.startswith(TASK) and runs_now(self.content, time.time() - self.note.written):
            return math.inf
        return self.note.written

    def manifests(self) -> Iterator[tuple[str, Manifest]]:
        """With what the run calls each."""
        files = self.content.get("files")
        named = files if self.note.name.startswith(TASK) and isinstance(files, dict) else {"note": self.content}
        for name, value in named.items():
            yield from ((name, manifest) for manifest in manifests(value))


def uses(store: Store, unreadable: Callable[[StoreError], None] | None = None) -> dict[str, list[Use]]:
    """Every use of a blob, by SHA-256, most recently active run first.

    A run is active while a task of it runs, or of a run that resumes it. Raises StoreError for a note that cannot be
    read or is malformed, so that what it refers to is not known. With `unreadable`, which is told of each, the others
    count alone: enough to tell what is there, not what may go.
    """
    found: dict[str, list[Use]] = {}
    read = list(_all_read(store, unreadable))
    active = _active(read)
    for one in sorted(read, key=lambda one: not one.note.name.startswith(TASK)):  # these have better names for files
        since = active.get(one.run, one.active) if one.run not in (UNFINISHED, COMPILED) else one.active
        for artifact, manifest in one.manifests():
            for name, entry in manifest.items():
                step = one.step if artifact == STORED else None
                use = Use(one.run, since, artifact, name, entry, one.note.name, step)
                found.setdefault(entry["sha256"], []).append(use)
    return {sha256: sorted(those, key=lambda use: use.active, reverse=True) for sha256, those in found.items()}


def _all_read(store: Store, unreadable: Callable[[StoreError], None] | None = None) -> Iterator[_Read]:
    for note in store.notes():
        try:
            content = content_of(store, note.name)
        except StoreError as error:
            if unreadable is None:
                raise
            unreadable(error)
        else:
            if content is not None:  # else it has gone since
                yield _Read(note, content)


def _active(read: Collection[_Read]) -> dict[str, float]:
    """When each run was last active, itself or by a run that resumes it."""
    active: dict[str, float] = {}
    origins: dict[str, set[str]] = {}
    for one in read:
        active[one.run] = max(one.active, active.get(one.run, 0.0))
        if isinstance(origin := one.content.get("origin"), str):
            origins.setdefault(one.run, set()).add(origin)
    todo = list(active)
    while todo:
        run = todo.pop()
        for origin in origins.get(run, ()):
            if active.get(origin, 0.0) < active[run]:
                active[origin] = active[run]
                todo.append(origin)
    return active


def without_note(store: Store, since: float) -> list[str]:
    """Runs active since then that Metaflow's client knows here, keep files in this store, and left no note of them.

    Their artifacts alone tell which files: earlier versions left no notes. Metaflow's namespace becomes None.
    """
    from metaflow import Metaflow, namespace

    namespace(None)
    noted = {one.run for one in _all_read(store) if one.note.name.startswith(TASK)}
    return [
        run.pathspec
        for flow in Metaflow()
        for run in flow
        if run.pathspec not in noted and _last_active(run) >= since and _keeps_files(store, run, noted)
    ]


def _keeps_files(store: Store, run: Any, noted: Collection[str]) -> bool:
    from components.store import store_root

    for task in (task for step in run if step.id == "start" for task in step):
        said = task.metadata_dict
        if f"{run.pathspec.split('/')[0]}/{said.get('origin-run-id')}" in noted:
            return False  # all that it has is a copy of what that one noted
        if said.get("ds-type") not in ("local", "s3") or store_root(said["ds-type"], said["ds-root"]) != store.root:
            return False
        return said.get("attempt_ok") == "True" and any(artifact.id == "store_root" for artifact in task)
    return False


def _last_active(run: Any) -> float:
    times = [run.created_at, *(task.created_at for step in run for task in step)]
    return float(max(time.timestamp() for time in times if time is not None))


def manifests(value: object) -> Iterator[Manifest]:
    """The manifests in a value: itself, or in dicts, lists, tuples and dataclasses, however deep."""
    if isinstance(value, dict):
        if value and all(map(is_entry, value.values())):
            yield value
        else:
            yield from _each(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from _each(value)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _each([getattr(value, field.name) for field in fields(value)])


def _each(values: Collection[object]) -> Iterator[Manifest]:
    for value in values:
        yield from manifests(value)
