"""Where a run stands while it goes on, in a few lines: a picture made of what its tasks tell, for one place to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from components.reporting.text import duration, meter
from components.runtime.heartbeat import QUIET

SEPARATOR = " · "


@dataclass(frozen=True)
class Place:
    """Where a task stands in its run, as it says at its beginning."""

    kind: str  # of step
    iteration: int  # 0 before the first
    last: int
    branch: str = ""  # of a comparison
    shard: tuple[int, int] | None = None  # from 0, of so many
    win_rate: str | None = (
        None  # the last one measured; see `report.win_rate_so_far`; None where that was not looked up
    )
    seconds: float | None = None  # what an iteration took so far, in the mean; None if that is not known


@dataclass(frozen=True)
class _Work:
    """How far a piece of work of a task is."""

    at: float  # when it was told
    description: str
    done: int
    total: int
    elapsed: float  # seconds
    figures: Mapping[str, float]

    def left(self, now: float) -> float:
        """Seconds that it may take still, at the pace so far, as a `meter` has it."""
        return max(self.elapsed * (self.total / self.done - 1) - (now - self.at), 0.0) if self.done else 0.0


@dataclass
class _Task:
    """A task that runs."""

    since: float
    place: Place | None = None
    work: _Work | None = None


@dataclass
class _Branch:
    """A run, or one of a comparison's."""

    place: Place | None = None
    begun: dict[int, float] = field(default_factory=dict)  # when each iteration was first heard of
    whole: list[int] = field(default_factory=list)  # iterations that were seen to begin
    shards: dict[str, int] = field(default_factory=dict)  # how many each step has
    done: dict[str, int] = field(default_factory=dict)  # how many of them each step has done
    win_rate: str = ""
    seconds: float | None = None
    loss: float | None = None
    over: bool = False  # nothing is left to do of it: its last iteration was evaluated

    def seconds_an_iteration(self) -> float | None:
        """By the clock where an iteration has been watched from beginning to end, else what its steps say."""
        spans = [self.begun[t + 1] - self.begun[t] for t in self.whole if t + 1 in self.begun]
        return sum(spans) / len(spans) if spans else self.seconds


class Picture:
    """What is known of a run. All times are seconds of one clock that never goes back."""

    def __init__(self, name: str, now: float) -> None:
        self.name, self._began = name, now
        self.resumed = False  # from a run some of whose shards it takes over, nobody says which
        self._tasks: dict[str, _Task] = {}
        self._branches: dict[str, _Branch] = {}

    @property
    def running(self) -> Sequence[str]:
        """The tasks that run, as `STEP/ID`."""
        return list(self._tasks)

    def starts(self, task: str, now: float) -> None:
        """A task begins, or begins again."""
        self._tasks[task] = _Task(now)

    def ends(self, task: str, *, well: bool) -> None:
        """A task is over."""
        over = self._tasks.pop(task, None)
        place = None if over is None else over.place
        if not well or place is None:
            return
        branch = self._branches[place.branch]
        if place.shard is not None:
            step = task.partition("/")[0]
            branch.done[step] = branch.done.get(step, 0) + 1
        branch.over = branch.over or (place.kind == "evaluate" and place.iteration == place.last)

    def told(self, record: Mapping[str, Any], now: float) -> None:
        """Takes in a record of `components.runtime.reports`; one of a task that is over comes too late."""
        task = self._tasks.get(record["task"])
        if task is None:
            return
        if "place" in record:
            task.place = Place(**record["place"])
            self._stands(record["task"].partition("/")[0], task.place, now)
        if "progress" in record:
            task.work = _Work(now, *record["progress"])
            if task.place is not None and task.place.kind == "train" and "loss" in task.work.figures:
                self._branches[task.place.branch].loss = task.work.figures["loss"]

    def _stands(self, step: str, place: Place, now: float) -> None:
        branch = self._branches.setdefault(place.branch, _Branch())
        branch.place = place
        if place.iteration and place.iteration not in branch.begun:
            branch.begun[place.iteration] = now
            if place.kind == "plan":
                branch.whole.append(place.iteration)
        if place.shard is not None:
            branch.shards[step] = place.shard[1]
        if place.win_rate is not None:
            branch.win_rate = place.win_rate
        branch.seconds = branch.seconds if place.seconds is None else place.seconds

    def lines(self, now: float, clock: datetime, columns: int, rows: int) -> list[str]:
        """The picture, at most so many rows of so many columns; `clock` is the time of day."""
        count = len(self._tasks)
        head = [self.name, f"running for {duration(now - self._began)}", f"{count} task{'s' * (count != 1)} at work"]
        above = _wrapped(head, columns)
        arms = any(self._branches)  # then what comes before them has no place of its own any more
        for name, branch in self._branches.items():
            if branch.place is not None and (name or not arms):
                above += _wrapped(list(self._standing(name, branch, now, clock)), columns)
        below = [_task_line(name, task, now, columns) for name, task in self._tasks.items()]
        room = max(rows - len(above), 1)
        if len(below) > room:
            below = [*below[: room - 1], f"… and {len(below) - room + 1} more tasks"]
        return [*above, *below][:rows]

    def _standing(self, name: str, branch: _Branch, now: float, clock: datetime) -> Iterator[str]:
        place = branch.place
        assert place is not None
        yield from [name] if name else []
        yield f"iteration {place.iteration} of {place.last}" if place.iteration else "before iteration 1"
        steps = [step for step in branch.shards if step.endswith(f"_{place.iteration}")]
        if steps and place.kind in ("generate", "score"):
            counts = [
                f"{step.rpartition('_')[0]} {branch.done.get(step, 0)} of {branch.shards[step]}" for step in steps
            ]
            yield f"shards done{' since it was resumed' * self.resumed}: {', '.join(counts)}"
        if rate := self._tokens_per_second(name):
            yield f"{rate:,.0f} tokens/s"
        if branch.loss is not None:
            yield f"loss {branch.loss:.3g}"
        if branch.win_rate:
            yield f"win rate {branch.win_rate}"
        if branch.over:
            yield from ["evaluated"] if name else []
        elif place.iteration and place.kind != "end":
            yield _end(branch, place, self._seconds_of_tasks(name, now), now, clock)

    def _works(self, branch: str) -> list[_Work]:
        tasks = [task for task in self._tasks.values() if task.place and task.place.branch == branch]
        return [task.work for task in tasks if task.work and task.work.done < task.work.total]

    def _tokens_per_second(self, branch: str) -> float:
        return sum(work.figures.get("tokens_per_second", 0.0) for work in self._works(branch))

    def _seconds_of_tasks(self, branch: str, now: float) -> float:
        return max((work.left(now) for work in self._works(branch)), default=0.0)


def _end(branch: _Branch, place: Place, at_least: float, now: float, clock: datetime) -> str:
    """When the run is expected to end: its iterations take what the ones before took, and no less than its tasks."""
    each = branch.seconds_an_iteration()
    if each is None:
        return f"expected end of the run: known after iteration {place.iteration}"
    left = max(branch.begun[place.iteration] + each * (place.last - place.iteration + 1) - now, at_least)
    end = clock + timedelta(seconds=left)
    day = "" if end.date() == clock.date() else f" on {end:%Y-%m-%d}"
    return f"expected end of the run at {end:%H:%M}{day}, in about {duration(left)}"


def _task_line(name: str, task: _Task, now: float, columns: int) -> str:
    """A task's progress, or since when it has had none to report."""
    shard = "" if task.place is None or task.place.shard is None else f" shard {task.place.shard[0] + 1}"
    prefix, work = f"{name}{shard}: ", task.work
    if work is None:
        return f"{prefix}{'starting' if task.place is None else 'preparing'}, {duration(now - task.since)}"
    silent = now - work.at
    tail = f", no news for {silent:.0f} s" if silent >= QUIET else ""
    bar = meter(work.description, work.done, work.total, work.elapsed, work.figures, columns - len(prefix) - len(tail))
    return f"{prefix}{bar}{tail}"


def _wrapped(parts: Sequence[str], columns: int) -> list[str]:
    """Parts side by side, in as many lines as they need; the further ones are indented."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(SEPARATOR) + len(part) <= columns:
            lines[-1] += f"{SEPARATOR}{part}"
        else:
            lines.append(f"  {part}")
    return lines
