"""What lies in a store, who needs it, whether it is whole, and what may go."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.config.errors import StoreError
from components.store.base import Store
from components.store.records import Blob, FileEntry, Note, Unfinished
from components.store.references import Use, uses, without_note

DAY = 24 * 3600.0  # seconds
Uses = Mapping[str, Sequence[Use]]


@dataclass(frozen=True)
class Garbage:
    """What no run within an age needs."""

    blobs: list[Blob]
    unfinished: list[Unfinished]  # begun before that age
    notes: list[Note]  # written before that age


@dataclass(frozen=True)
class RunSize:
    """What a run refers to."""

    run: str
    active: float  # seconds since the epoch
    files: int
    size: int  # bytes
    alone: int  # bytes that no other run refers to


def run_sizes(used: Uses) -> list[RunSize]:
    """What each run refers to, most recently active run first; a blob is counted once a run."""
    runs: dict[str, dict[str, Use]] = {}
    for sha256, those in used.items():
        for use in those:
            runs.setdefault(use.run, {})[sha256] = use
    sizes = []
    for run, blobs in runs.items():
        alone = sum(use.entry["size"] for sha256, use in blobs.items() if {u.run for u in used[sha256]} == {run})
        total = sum(use.entry["size"] for use in blobs.values())
        sizes.append(RunSize(run, max(use.active for use in blobs.values()), len(blobs), total, alone))
    return sorted(sizes, key=lambda size: size.active, reverse=True)


def damages(store: Store, used: Uses, run: str | None = None) -> Iterator[str | None]:
    """Reads every blob of the store, or of one run: None for a whole one, or what is wrong with it.

    Blobs that a run refers to and that are missing count as damaged.
    """
    named = {sha256: [use for use in those if run in (None, use.run)] for sha256, those in used.items()}
    expected: dict[str, tuple[str, FileEntry]] = {
        sha256: (f"{those[0].run} {those[0].artifact}: {those[0].name}", those[0].entry)
        for sha256, those in named.items()
        if those
    }
    if run is None:
        for blob in store.blobs():
            expected.setdefault(blob.sha256, ("used by no run", FileEntry(sha256=blob.sha256, size=blob.size)))
    elif not expected:
        raise StoreError(f"{run}: refers to no file of a store. Name a run as FLOW/RUN.")
    for name, entry in expected.values():
        try:
            store.verify({name: entry})
        except StoreError as error:
            yield f"{error}{_healed_by(used.get(entry['sha256'], ()))}"
        else:
            yield None


def _healed_by(those: Sequence[Use]) -> str:
    """The command that has a file stored again, if it is known which step stored it."""
    for use in those:
        if use.stored_by is not None:
            flow, _, run = use.run.partition("/")
            script = re.sub("(?<=[a-z])(?=[A-Z])", "_", flow).lower()
            words = ["python", f"flows/{script}.py", "resume", use.stored_by, "--origin-run-id", run]
            return f"\n  {shlex.join(words)}"
    return ""


def garbage(store: Store, used: Uses, older_than: float, now: float | None = None) -> Garbage:
    """What was put, or found stored by a `put`, longer ago than `older_than` seconds and no run active since needs.

    Notes of runs active since stay, whenever they were written.
    """
    limit = (time.time() if now is None else now) - older_than
    kept = {use.note for those in used.values() for use in those if use.active >= limit}
    needed = {sha256 for sha256, those in used.items() if any(use.active >= limit for use in those)}
    blobs = [blob for blob in store.blobs() if blob.used < limit and blob.sha256 not in needed]
    unfinished = [one for one in store.unfinished() if one.begun < limit]
    notes = [note for note in store.notes() if note.written < limit and note.name not in kept]
    return Garbage(blobs, unfinished, notes)


def remove(
    store: Store, found: Garbage, older_than: float, forgotten: Collection[str] = (), now: float | None = None
) -> Garbage:
    """Removes of `found` what is still garbage and returns that.

    Runs may work meanwhile: the notes are read once more, and the age of each blob just before it goes. A `put` that
    finds an old blob renews its age. So a run loses a blob only if it resumes from a run older than the age between
    the second reading and the removal; it then fails with the blob's name, and never reads wrong bytes.

    Raises StoreError for an age under a day, in which a run may not have noted yet what it stored; when no note tells
    of a blob's use; and when a run within the age, other than the `forgotten`, has left no note of its files.
    """
    if older_than < DAY:
        raise StoreError("--older-than: must be at least 1d: a run may not have noted younger files yet.")
    used = uses(store)
    if not any(blob.sha256 in used for blob in store.blobs()):
        raise StoreError(
            f"{store.root}: no run has left a note of a file in it, so what is needed is not known. Check --root and "
            "--datastore. If its runs are gone, delete the store as a whole."
        )
    limit = (time.time() if now is None else now) - older_than
    _refuse_unknown(store, limit, forgotten)
    still = garbage(store, used, older_than, now)
    blobs, notes = {blob.sha256 for blob in still.blobs}, {note.name for note in still.notes}
    removed = []
    for blob in found.blobs:
        again = store.find(blob.sha256) if blob.sha256 in blobs else None
        if again and again.used < limit:
            store.remove(blob.sha256)
            removed.append(blob)
    for one in found.unfinished:
        store.discard(one)
    gone = [note for note in found.notes if note.name in notes]
    for note in gone:
        store.remove_note(note.name)
    return Garbage(removed, found.unfinished, gone)


def refuse_unknown_names(store: Store, used: Uses, forgotten: Collection[str]) -> None:
    """Raises StoreError for a run to be forgotten of which neither the store nor Metaflow's client knows."""
    named = {use.run for those in used.values() for use in those}
    if not (left := [run for run in forgotten if run not in named]):
        return
    there = without_note(store, -math.inf)
    if absent := [run for run in left if run not in there]:
        known = f" Those without a note: {', '.join(there)}." if there else ""
        raise StoreError(f"--forget {absent[0]}: there is no such run in {store.root}. Name one as FLOW/RUN.{known}")


def _refuse_unknown(store: Store, since: float, forgotten: Collection[str]) -> None:
    if unknown := [run for run in without_note(store, since) if run not in forgotten]:
        raise StoreError(
            f"{unknown[0]}: has left no note of its files, as runs of an earlier version did not"
            f"{f' (nor have {len(unknown) - 1} more)' if unknown[1:] else ''}. Choose an --older-than that leaves it "
            f"out, or give up what it keeps: {' '.join(f'--forget {run}' for run in unknown)}"
        )
