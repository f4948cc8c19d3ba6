"""Removes saved states of unfinished training that nobody needs any more, without torch, as steps do that call it."""

from __future__ import annotations

from components.store import Manifest, Store
from components.store.note_kinds import content_of


def forget(store: Store, key: str) -> None:
    """Removes the state of a training whose result is recorded."""
    if manifest := content_of(store, key):
        store.remove_note(key)
        remove(store, manifest)


def remove(store: Store, manifest: Manifest | None) -> None:
    """Removes the files of a state, if there is one."""
    for entry in (manifest or {}).values():
        store.remove(entry["sha256"])
