"""Continuing: a new run that begins with the last good policy of another (`start_from`).

It keeps that run's reference, prompts and precision, counts iterations and adds to `history` where that run stopped,
and refers to its files in the store without copying them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from typing import Any

from components.config.errors import StoreError
from components.run_config.fields import LATEST
from components.stages import runs
from components.stages.context import Workspace
from components.stages.handover import Started
from components.stages.origin import HISTORY, Origin
from components.store import note_kinds
from components.store.note_kinds import content_of

NOTE = "finished-"  # begins the names of notes of finished runs
NOTED = ("run", "config", "store_root", "started", "policy", "optimizer", "evaluated", "history", "iteration")
ARTIFACTS = (
    *("policy", "reference", "optimizer", "prompts", "precision", "evaluated", "evaluated_reference"),
    *("reward_reference", "history", "iteration", "store_root", "config"),
)


logger = logging.getLogger(__name__)


class NoteError(StoreError):
    """A note of a finished run that tells which files it has, but not all that continuing takes."""


def find(work: Workspace) -> Origin | None:
    """The run that the config's `start_from` means; None for none.

    "FLOW/RUN" is that run, finished or failed, after its last whole iteration; "latest" the newest finished one that
    this run can continue. Finished runs are found by their notes in the store, also where Metaflow's client does not
    know them.

    Raises RunError for a run that does not exist or has not finished an iteration, and as `Origin.check`.
    """
    wanted = work.config.start_from
    if wanted == LATEST:
        return _latest(work)
    if wanted is None:
        return None
    if (noted := _read_note(work, _name(wanted))) is not None:
        return noted.with_history(work)
    return of(wanted, runs.last_iteration(wanted, artifacts=ARTIFACTS))


def _latest(work: Workspace) -> Origin | None:
    """The newest finished run that this one can continue; says which it leaves out for what the store has lost."""
    for origin in _finished(work, logger.warning):
        if lacking := origin.lacks(work):
            logger.warning("start_from: latest leaves out %s. %s", origin.run, lacking)
        elif not origin.problems(work):
            return origin.with_history(work)
    return None


def remember(work: Workspace, origin: Origin) -> None:
    """Leaves a note of how a run ended, for `find` and for the house-keeping of the store."""
    assert origin.history is not None  # a run that has just ended
    values = {name: getattr(origin, name) for name in NOTED}
    values |= {"started": asdict(origin.started), "history": work.keep(HISTORY, origin.history.to_parquet)}
    work.store.write_note(_name(origin.run), json.dumps(values))


def of(run: str, data: Any) -> Origin:
    """A run as its artifacts, the attributes of `data`, tell."""
    started = Started(
        policy=data.reference,
        prompts=data.prompts,
        evaluated=data.evaluated_reference,
        reward=data.reward_reference,
        precision=data.precision,
    )
    return Origin(
        run=run,
        config=data.config if isinstance(data.config, dict) else data.config.to_dict(),
        store_root=data.store_root,
        started=started,
        policy=data.policy,
        optimizer=data.optimizer,
        evaluated=data.evaluated,
        history=data.history,
        iteration=data.iteration,
    )


def _finished(work: Workspace, tell: Callable[[str, str], object] = lambda *_: None) -> Iterator[Origin]:
    """The finished runs that the store knows, the newest first; `tell` is told why one is left out."""
    notes = [note for note in work.store.notes() if note.name.startswith(NOTE)]
    for note in sorted(notes, key=lambda note: note.written, reverse=True):
        try:
            origin = _read_note(work, note.name)
        except NoteError as error:
            tell("start_from: latest leaves out a run. %s", str(error))
            continue
        if origin is not None:
            yield origin


def _read_note(work: Workspace, name: str) -> Origin | None:
    """A finished run, without its history; None without a note. Raises NoteError for one that tells too little."""
    values = content_of(work.store, name)
    if values is None:
        return None
    if problem := note_kinds.lacking(values, note_kinds.CONTINUED):
        raise NoteError(
            f"{work.store.root}: by its note {name}, no run can continue from {values['run']} ({problem}). Continue "
            "with the version of WIND that wrote it, or from another run."
        )
    known = {field.name for field in fields(Started)}  # later versions may have added to both
    started = Started(**{key: value for key, value in values["started"].items() if key in known})
    kept = {key: values[key] for key in NOTED if key not in ("started", "history")}
    return Origin(**kept, started=started, history=None, history_file=values["history"])


def _name(run: str) -> str:
    return NOTE + run.replace("/", "-")


def beginning(work: Workspace, origin: Origin | None) -> str:
    """What the run begins with, as a sentence."""
    if origin is not None:
        return f"Continues from {origin.run} after its iteration {origin.iteration}."
    if work.config.start_from == LATEST:
        newest = next(_finished(work), None)
        said = "There is no finished run to continue."
        if newest is not None:
            why = newest.lacks(work) or newest.problems(work)[0]
            said = f"No finished run can be continued, the newest not for this:\n{why}"
        return f"{said}\nBegins with the base policy."
    return "Begins with the base policy."
