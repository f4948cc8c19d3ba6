"""Removes saved states of unfinished training that nobody needs any more, without torch, as steps do that call it."""

from __future__ import annotations

import json

from components.store import Manifest, Store


def forget(store: Store, key: str) -> None:
    """Removes the state of a training whose result is recorded."""
    if note := store.read_note(key):
        store.remove_note(key)
        remove(store, json.loads(note))


def remove(store: Store, manifest: Manifest | None) -> None:
    """Removes the files of a state, if there is one."""
    for entry in (manifest or {}).values():
        store.remove(entry["sha256"])
