"""The kinds of notes, and what each must hold: of one that holds less it is not known which files it should name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from components.config import strict_json
from components.config.errors import NoteError
from components.store.base import Store
from components.store.records import is_entry
from components.store.task_notes import TASK


def content_of(store: Store, name: str) -> dict[str, Any] | None:
    """What a note holds; None only if there is none of this name.

    Raises NoteError for a note that cannot be read, is empty, or is not as its kind must be.
    """
    text = store.read_note(name)
    if text is None:
        return None
    try:
        content = strict_json.loads(text)
    except strict_json.JsonError as error:
        raise _unreadable(store, name, str(error)) from error
    if not isinstance(content, dict):
        raise _unreadable(store, name, f"it holds {type(content).__name__} and not an object, {{…}}")
    if problem := _problem(name, content):
        raise _unreadable(store, name, problem)
    return content


def _unreadable(store: Store, name: str, why: str) -> NoteError:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return NoteError(
        f"{store.root}: the note {shown} cannot be read ({why}), so the files that it refers to are not known. Restore "
        f"it from a backup. Delete it if its run is not needed any more: {store.root}/notes/{shown}"
    )


def _problem(name: str, content: Mapping[str, Any]) -> str | None:
    kind = next((kind for begin, kind in KINDS.items() if name.startswith(begin)), None)
    if kind is None:
        return "no kind of note has such a name"
    return lacking(content, kind)


def lacking(content: Mapping[str, Any], asked: Mapping[str, Callable[[object], bool]]) -> str | None:
    """The first thing that a note should hold and does not, as a sentence; None if all is there."""
    wrong = [key for key, is_right in asked.items() if not is_right(_at(content, key))]
    return f"{wrong[0] or 'its content'} is missing or not what it must be" if wrong else None


def _at(content: Any, key: str) -> object:
    for part in filter(None, key.split(".")):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_manifest(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(is_entry, value.values()))


def _are_manifests(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_manifest, value))


def _is_files(value: object) -> bool:
    return isinstance(value, dict) and all(map(_are_manifests, value.values()))


def _or_none(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


STARTED = {f"started.{name}": _is_manifest for name in ("policy", "prompts", "evaluated")}
# By the begin of the names: where what must be. What else a note holds does not matter here.
KINDS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    TASK: {
        "run": _is_text,
        "task": _is_text,
        "origin": _or_none(_is_text),
        "process": _is_object,
        "launcher": _or_none(_is_object),
        "ended": _is_bool,
        "files": _is_files,
    },
    "finished-": {
        "run": _is_text,
        **STARTED,
        **dict.fromkeys(("policy", "optimizer", "evaluated", "history"), _is_manifest),
    },
    "compared-": {"run": _is_text, **STARTED, "policies": _are_manifests},
    "training-": {"": _is_manifest},
    "benchmarks-": {"scores": _is_list},
    "compiled-": {"archive": is_entry},
}
# What the note of a finished run must hold besides for another to continue from it. Without, its files are known all
# the same, so the house-keeping does not ask for it.
CONTINUED: Mapping[str, Callable[[object], bool]] = {
    "iteration": _is_count,
    "store_root": _is_text,
    "started.reward": _is_number,
    "started.precision": _is_text,
    **{
        f"config.{section}": _is_object
        for section in ("policy", "prompts", "generation", "judge", "algorithm", "training", "evaluation")
    },
}
