"""Removes saved states of unfinished training that nobody needs any more, without torch, as steps do that call it."""

from __future__ import annotations

from components.config.errors import NoteError
from components.store import Manifest, Store
from components.store.note_kinds import content_of


def same_work(store: Store, key: str) -> list[str]:
    """Keys of the states that there are of a training, saved by this code or another; see `training_key`."""
    work, _, _ = key.rpartition("-")
    return [note.name for note in store.notes() if note.name.startswith(f"{work}-")]


def forget(store: Store, key: str) -> None:
    """Removes the states of a training whose result is recorded, also those that other code left."""
    for one in same_work(store, key):
        try:
            manifest = content_of(store, one)
        except NoteError:  # its files are left to `wind store gc`, which a note like that would stop
            manifest = None
        store.remove_note(one)
        remove(store, manifest)


def remove(store: Store, manifest: Manifest | None) -> None:
    """Removes the files of a state, if there is one."""
    for entry in (manifest or {}).values():
        store.remove(entry["sha256"])
