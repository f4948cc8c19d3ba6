"""A run that trains on two nodes, watched from outside and killed.

Nothing is put into the flow: how far it is shows in its processes and files, and the kill is SIGKILL. Victims:

    node 0, node 1       a node's task and the process of it that trains, as a machine that goes away
    task 0, task 1       the task alone
    worker 0, worker 1   the process that trains alone
    join                 the task that joins the nodes
    all                  the launcher's process group, so everything at once
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from components.store.files import PARTIAL
from support.faults.chains import SOON, processes
from support.flows.flow_home import FLOW, Home

TOKEN = "KILL_TOKEN"
BIG = 1 << 20  # bytes that weights have and no other file
# A model whose saved state has some 20 MB, so that writing it takes a while; four steps a pass, a state after each two.
CHANGES: dict[str, Any] = {
    "demo": {"hidden_size": 256, "layers": 2, "steps": 5},
    "prompts": {"shards": 1},
    "training": {"nodes": 2, "epochs": 2, "batch_size": 4, "micro_batch_size": 2, "checkpoint_steps": 2},
    "live_cards": [],
}


class Attempt:
    """A run or a resume under way, each on a machine of its own: a working directory, TMPDIR and METAFLOW_HOME."""

    def __init__(self, home: Home, *action: str) -> None:
        self.home, self.token = home, uuid.uuid4().hex
        self.machine = home.folder / f"machine-{self.token}"
        self.tmp, self.store = self.machine / "tmp", Path(home.store_root("local"))
        self.tmp.mkdir(parents=True)
        self.began = self.killed = 0.0  # when training did, and when it was killed; seconds since 1970
        self.pids: dict[str, int] = {}
        self.first_note = 0  # when `phases` first saw one of a saved state, in nanoseconds since 1970
        self._looked = 0.0
        top = ["--config", "config", str(home.folder / "config.yaml")] if action[0] == "run" else []
        command = [str(FLOW), "--no-pylint", *top, action[0], "--run-id-file", str(self.machine / "id"), *action[1:]]
        env = {**home.env, TOKEN: self.token, "METAFLOW_HOME": str(self.machine), "TMPDIR": str(self.tmp)}
        with (self.machine / "said").open("wb") as said:
            self.launcher = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.machine,
                env=env,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.look(now=True).values():
            _end(pid)
        self.launcher.kill()
        self.launcher.wait()

    @property
    def run(self) -> str:
        """The run's number."""
        return (self.machine / "id").read_text()

    @property
    def said(self) -> str:
        """All output so far."""
        return (self.machine / "said").read_text()

    def look(self, *, now: bool = False) -> dict[str, int]:
        """Process ids of the victims that there are, as of a moment ago; reading all processes takes a while."""
        if now or time.monotonic() - self._looked > 0.05:
            self.pids, self._looked = dict(_victims(self.token)), time.monotonic()
        return self.pids

    def reach(self, signs: Sequence[Sign], node: int, seconds: float = 300) -> None:
        """Waits until the signs of a phase have been seen, each after the one before, for a victim on this node."""
        limit = time.monotonic() + seconds
        for sign in (_trains, *signs):
            while not sign(self, node):
                assert self.launcher.poll() is None, f"ended before it was killed\n{self.said}"
                assert time.monotonic() < limit, f"did not get there in {seconds} s\n{self.said}"
                time.sleep(0.0005)
            self.began = self.began or time.time()

    def strike(self, victim: str) -> None:
        """Kills the victim, whose processes `look` has found."""
        if victim == "all":
            os.killpg(self.launcher.pid, signal.SIGKILL)
        place = victim.removeprefix("node ")
        names = [f"worker {place}", f"task {place}"] if victim.startswith("node") else [victim]
        for name in names:
            if name in self.pids:
                _end(self.pids[name])
        self.killed = time.time()

    def end(self, seconds: float = SOON) -> tuple[float, float]:
        """Waits until no process is left; the seconds until nothing trained any more, and until then."""
        begin, stopped = time.monotonic(), 0.0
        while self.launcher.poll() is None or processes(self.token):
            assert time.monotonic() - begin < seconds, f"{processes(self.token)} run on\n{self.said}"
            if self.look(now=True):
                stopped = time.monotonic() - begin
            time.sleep(0.1)
        return stopped, time.monotonic() - begin

    def lines(self) -> list[list[Any]]:
        """What training has told of its progress: step, of how many, and figures."""
        text = ""
        with suppress(FileNotFoundError):  # the task has just ended
            text = "".join(path.read_text() for path in self.tmp.glob("wind-train-*/tmp*/progress.jsonl"))
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def note(self) -> Path | None:
        """That of the saved state."""
        return next((self.store / "notes").glob("training-*"), None)

    def partial(self) -> bool:
        """Whether a file with weights is being written into the store, or was when its writer died."""
        for path in (self.store / "tmp").glob(f"{PARTIAL}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_size > BIG:
                    return True
        return False

    def found(self) -> str:
        """What the kill left, in words."""
        note, states = self.note(), sorted(filter(None, map(_step_of, self.store.glob("sha256/??/*"))))
        named = [entry["sha256"] for entry in json.loads(note.read_text()).values()] if note else []
        noted = [_step_of(self.store / "sha256" / name[:2] / name) for name in named]
        torn = ", one half written" if self.partial() else ""
        return f"states {states or 'none'}, noted {noted[0] if noted else 'none'}{torn}"

    def redone(self) -> float:
        """Seconds of training that the next attempt has to do again."""
        note = self.note()
        return max(0.0, self.killed - max(self.began, note.stat().st_mtime if note else 0.0))


Sign = Callable[[Attempt, int], bool]


def _trains(attempt: Attempt, node: int) -> bool:
    return "task 0" in attempt.look()


def _victims(token: str) -> Iterator[tuple[str, int]]:
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: -int(path.name)):
        try:
            words, env = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is another user's
            continue
        if f"{TOKEN}={token}".encode() not in env:
            continue
        if b"components.stages.training_processes" in words:
            rank = next(word for word in env if word.startswith(b"RANK="))
            yield f"worker {rank.removeprefix(b'RANK=').decode()}", int(process.name)
        for word, name in ((b"ubf_control", "task 0"), (b"ubf_task", "task 1"), (b"collect_1", "join")):
            if word in words:
                yield name, int(process.name)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _step_of(blob: Path) -> int | None:
    """The optimiser step of a saved state, from its file's header; None for a file of another kind."""
    with blob.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > blob.stat().st_size:
            return None
        try:
            about = json.loads(file.read(size)).get("__metadata__", {})
        except ValueError:  # no safetensors file
            return None
    return int(json.loads(about["progress"])["done"]) if "progress" in about else None
