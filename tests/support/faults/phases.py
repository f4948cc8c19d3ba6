"""Phases of the training on two nodes, as signs that show from outside; see `nodes`.

Each phase is a row of signs, of which each has to be seen after the one before; the last is the time to kill.
"""

from __future__ import annotations

from pathlib import Path

from support.faults.nodes import Attempt, Sign


def _begun(name: str) -> Sign:
    return lambda attempt, node: name.format(node) in attempt.look()


def _loading(attempt: Attempt, node: int) -> bool:
    """A training process makes its folder when all have met; the tasks have theirs."""
    return len(list(attempt.tmp.glob("wind-train-*"))) == 4 and {"worker 0", "worker 1"} <= attempt.look().keys()


def _after(share: float) -> Sign:
    """This share of the steps is done."""
    return lambda attempt, node: any(done >= share * total for done, total, _ in attempt.lines())


def _noted(attempt: Attempt, node: int) -> bool:
    """A state has been saved."""
    if note := attempt.note():
        attempt.first_note = note.stat().st_mtime_ns
    return note is not None


def _noted_again(attempt: Attempt, node: int) -> bool:
    """Another has taken its place."""
    note = attempt.note()
    return note is not None and note.stat().st_mtime_ns > attempt.first_note


def _writing(attempt: Attempt, node: int) -> bool:
    return attempt.partial()


def _written(attempt: Attempt, node: int) -> bool:
    return not attempt.partial()


def _trained(attempt: Attempt, node: int) -> bool:
    """The policy's files are there, to be stored."""
    return any(attempt.tmp.glob("wind-train-*/trained/*"))


def _worker_ended(attempt: Attempt, node: int) -> bool:
    """Its task, which looks twice a second, does not know of it."""
    try:
        stat = Path(f"/proc/{attempt.pids[f'worker {node}']}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


PHASES: dict[str, tuple[Sign, ...]] = {
    "task starts": (_begun("task {}"),),
    "before the meeting": (_begun("worker {}"),),
    "model loads": (_loading,),
    "first pass": (_loading, _after(3 / 8)),
    "state is written": (_loading, _noted, _writing),
    "before its note": (_loading, _noted, _writing, _written),
    "after its note": (_loading, _noted, _noted_again),
    "between passes": (_loading, _after(1 / 2)),
    "weights are written": (_loading, _trained, _writing),
    "after the weights": (_loading, _trained, _worker_ended),
    "second pass": (_loading, _after(5 / 8)),
    "join": (_begun("join"),),
}
