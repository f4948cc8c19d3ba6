"""Which runs need which blobs: manifests in notes, and in the artifacts of the runs that Metaflow's client knows.

A note tells what a finished run ended with also where Metaflow's client does not know the run, such as one of Argo's
without a metadata service.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from components.errors import StoreError
from components.store.base import FileEntry, Manifest, Store, is_entry


@dataclass(frozen=True)
class Use:
    """A file in a manifest in an artifact of a run, or in a note."""

    run: str  # FLOW/RUN
    active: float  # when the run last began a task or ended, or the note was written; seconds since the epoch
    artifact: str
    name: str
    entry: FileEntry


def uses(store: Store, ignored: Collection[str] = ()) -> dict[str, list[Use]]:
    """Every use of a blob, by SHA-256, most recently active run first.

    Metaflow's namespace becomes None: all users' runs count.

    Args:
        store: whose notes to read.
        ignored: flows not to look at.

    Raises:
        StoreError: an artifact cannot be read, so that what it refers to is not known.
    """
    from metaflow import Metaflow, namespace

    namespace(None)
    found: dict[str, list[Use]] = {}
    for use in sorted(_noted(store), key=lambda use: use.active, reverse=True):
        found.setdefault(use.entry["sha256"], []).append(use)
    known: dict[str, list[tuple[str, FileEntry]]] = {}
    runs = [run for flow in Metaflow() if flow.id not in ignored for run in flow]
    for run in sorted(runs, key=_active, reverse=True):
        active = _active(run)
        for artifact in (artifact for step in run for task in step for artifact in task):
            if artifact.sha not in known:  # equal artifacts of many tasks are one file
                known[artifact.sha] = [entry for m in manifests(_value(artifact)) for entry in m.items()]
            for name, entry in known[artifact.sha]:
                use = Use(run.pathspec, active, artifact.id, name, entry)
                found.setdefault(entry["sha256"], []).append(use)
    return {sha256: sorted(those, key=lambda use: use.active, reverse=True) for sha256, those in found.items()}


def _noted(store: Store) -> Iterator[Use]:
    for note in store.notes():
        content = json.loads(store.read_note(note.name) or "{}")  # it may be gone by now
        run = content.get("run") if isinstance(content.get("run"), str) else "unfinished training"
        for manifest in manifests(content):
            for name, entry in manifest.items():
                yield Use(run, note.written, "note", name, entry)


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


def _active(run: Any) -> float:
    times = [run.created_at, run.finished_at, *(task.created_at for step in run for task in step)]
    return float(max(time.timestamp() for time in times if time is not None))


def _value(artifact: Any) -> object:
    from metaflow.exception import MetaflowException

    try:
        return artifact.data
    except (MetaflowException, ImportError, AttributeError, OSError, EOFError) as error:
        flow = artifact.pathspec.split("/")[0]
        raise StoreError(
            f"{artifact.pathspec}: cannot be read ({error}), so the files that it refers to are not known. Run this "
            f"where the flow's code can be imported; if {flow} stores no weights, add `--ignore-flow {flow}`."
        ) from error
