"""One run of WindFlow, killed again and again and resumed until it ends, and what has to be true of it then."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from components.reporting import commands
from support.flows.flow_home import FOUR_STEPS, Ended, Home, differences

POINTS = [
    *("start", "plan_1", "generate_1/first", "generate_1/second", "score_1/first", "score_1/second"),
    *("gather_1", "train_1", "evaluate_1", "end"),
]
TASKS = {point.replace("first", "0").replace("second", "1") for point in POINTS}
SAVED_STEPS = {"training": {**FOUR_STEPS["training"], "checkpoint_steps": 1}}
STATUS = {"task": 1, "launcher": -9, "warm": 1, "server": 1}  # with which the launcher ends when this is killed
SOON = 120  # seconds after a kill in which every process has to be gone
# A server that is down is down: tests need not wait for the tries that may outlast a network's faults.
IMPATIENT = {
    "METAFLOW_S3_RETRY_COUNT": "1",
    "METAFLOW_S3_TRANSIENT_RETRY_COUNT": "1",
    "METAFLOW_S3_CLIENT_RETRY_CONFIG": '{"max_attempts": 2, "mode": "standard"}',
}
UNFINISHED = """
import sys
from components.store import open_store
store = open_store(sys.argv[1])
print(*(found.where for found in store.unfinished()), *(note.name for note in store.notes()), sep="\\n")
"""


class Kill(NamedTuple):
    """Of what runs the task `at`; `how` as in kills.py."""

    at: str
    how: str

    @property
    def victim(self) -> str:
        return self.how.split()[0]

    @property
    def moment(self) -> str:
        return self.how.split()[1]


def each(points: Iterable[str], *hows: str) -> list[Kill]:
    """At each point a kill in each of these ways, one after the other."""
    return [Kill(point, how) for point in points for how in hows]


def in_turn(points: Iterable[str], *hows: str) -> list[Kill]:
    """At each point one kill, in these ways in turn."""
    return [Kill(point, hows[number % len(hows)]) for number, point in enumerate(points)]


@dataclass
class Tally:
    """What a test saw."""

    kills: int = 0
    identical: int = 0  # of them, those after which the run ended with the undisturbed run's artifacts
    again: int = 0  # tasks that were run although a run before had finished them
    orphans: int = 0  # processes left SOON after a kill
    longest: float = 0.0  # seconds that a process outlived what was killed


@dataclass
class Chain:
    """A run on `datastore`, each attempt on a machine of its own that is gone when the next begins.

    What stays is what does so in earnest: the datastore, and Metaflow's records.
    """

    home: Home
    datastore: str
    tally: Tally
    server: Any = None  # of S3
    runs: list[str] = field(default_factory=list)  # one per attempt
    torn: int = 0  # files that kills have left half written

    @property
    def journal(self) -> Path:
        return self.home.folder / "journal"

    def attempt(
        self, kill: Kill | None = None, *options: str, origin: str | None = None, retries: int = 0, **env: str
    ) -> Ended:
        """Runs the flow, or resumes the last attempt or `origin`, to its end or to the kill."""
        origin = origin or (self.runs[-1] if self.runs else None)
        action = ["resume", "--origin-run-id", origin] if origin else ["run"]
        if kill:
            env |= {"KILL_AT": kill.at, "KILL_HOW": kill.how}
        token, machine = uuid.uuid4().hex, self.home.folder / f"machine-{uuid.uuid4().hex}"
        (machine / "tmp").mkdir(parents=True)
        retry = [f"retry:times={retries},minutes_between_retries=0"] if retries else []
        run, ended = self.home.launch(
            self.datastore,
            *action,
            *options,
            inject=["support.faults.kills.kill", *retry],
            cwd=machine,
            KILL_JOURNAL=str(self.journal),
            KILL_TOKEN=token,
            METAFLOW_HOME=str(machine),
            TMPDIR=str(machine / "tmp"),
            **env,
        )
        (self.home.folder / f"log-{run}").write_text(f"{kill}: {ended.status}\n{ended.stdout}\n{ended.stderr}")
        self.runs.append(run)
        self._wait_for_the_end_of(token)
        shutil.rmtree(machine)
        return ended

    def kill(self, kill: Kill, *options: str) -> Ended:
        """An attempt that is killed there."""
        env = {}
        if kill.victim == "server":
            env = IMPATIENT | {"KILL_SERVER": str(self.server.folder)}
        try:
            ended = self.attempt(kill, *options, **env)
        finally:
            if kill.victim == "server":
                self.server.control("start")
        said = f"{kill} in {self.runs[-1]}\n{ended.stdout}\n{ended.stderr}"
        events = [line["event"] for line in self.noted() if line["run"] == self.runs[-1]]
        assert kill.how in events, said
        assert "survived" not in events, said
        self.tally.kills += 1
        self.torn += kill.moment.partition(":")[0] in ("write", "part")
        assert ended.status == STATUS[kill.victim], said
        if kill.victim != "launcher":
            assert f"resume --origin-run-id {self.runs[-1]}" in ended.stderr, said
        if kill.victim == "task" and kill.moment != "exit":
            assert commands.killed(kill.at.partition("/")[0]) in ended.stderr, said
        return ended

    def walk(self, kills: Iterable[Kill]) -> None:
        """Each kill in an attempt of its own, and one more to the end."""
        before: Kill | None = None
        for kill in [*kills, None]:
            ended = self.kill(kill, "--max-workers", "1") if kill else self.attempt()
            if before and before.moment.startswith("step:"):
                goes_on = f"training continues after optimiser step {before.moment[5:]}"
                assert goes_on in ended.stdout + ended.stderr, f"after {before}\n{ended.stdout}\n{ended.stderr}"
            before = kill
        assert ended.status == 0, f"{ended.stdout}\n{ended.stderr}"

    def noted(self) -> list[dict[str, Any]]:
        """The journal."""
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def check(self, expected: dict[str, Any]) -> None:
        """That the last attempt ended like the undisturbed run, nothing was done twice, and the store is in order."""
        run = self.runs[-1]
        found = self.home.artifacts(run)
        assert found["store_root"] == self.home.store_root(self.datastore)
        assert differences(found, expected) == []
        self.tally.identical += self.tally.kills
        self._check_records()
        said = self.home.python("-m", "components.store", "verify", f"WindFlow/{run}", "--datastore", self.datastore)
        assert said.splitlines()[-1].endswith(" files read, 0 of them missing or damaged")
        left = self.home.python("-c", UNFINISHED, found["store_root"]).splitlines()
        assert [name for name in left if name.startswith("training-")] == []
        torn = [where for where in left if where.startswith(found["store_root"])]
        assert len(torn) == self.torn, torn

    def _check_records(self) -> None:
        records = self.home.tasks(self.runs)
        begun = [{line["task"] for line in self.noted() if line["run"] == run} for run in self.runs]
        finished: set[str] = set()
        for number, (run, record, tasks) in enumerate(zip(self.runs, records, begun, strict=True)):
            again = sorted(tasks & finished)
            self.tally.again += len(again)
            assert again == [], f"{run} ran them although an attempt before it had finished them"
            cloned = {name for name, is_cloned in record.items() if is_cloned}
            assert cloned == finished, f"attempt {number}, {run}"
            finished = set(record)
        assert finished == TASKS

    def _wait_for_the_end_of(self, token: str) -> None:
        begin = time.monotonic()
        while (left := processes(token)) and time.monotonic() - begin < SOON:
            time.sleep(0.1)
        self.tally.orphans += len(left)
        assert left == [], f"{self.runs[-1]}: outlived the kill by {SOON} s"
        self.tally.longest = max(self.tally.longest, time.monotonic() - begin)

    def report(self) -> dict[str, float]:
        return asdict(self.tally)


def processes(token: str) -> list[str]:
    """Command lines of all processes that were started with this word in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is another user's
            continue
    return found
