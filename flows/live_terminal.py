"""A run in a terminal: one place that tells where it stands, drawn anew; above it only what is worth keeping.

Metaflow's own lines about tasks that begin and end, and the tasks' progress bars, go to a file. Everything else is
shown: what steps print, warnings, and all that a task says that fails.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from metaflow.parameters import flow_context

from components.reporting.live import Picture
from components.reporting.text import duration, is_meter
from components.runtime.heartbeat import is_sign
from components.runtime.reports import REPORTS, Reader
from components.runtime.scratch import scratch
from components.runtime.screen import Screen
from components.runtime.terminal import visible
from plain import NO_COLOR

INTERVAL = 0.5  # seconds between two drawings
# What Metaflow says of tasks and runs that the picture shows, too; anything else that it says is shown.
USUAL = re.compile(
    r"Task is starting( \(retry\))?\.|Task finished successfully\.|Foreach yields \d+ child steps\.|Done!.*"
    r"|Workflow starting \(run-id .*|Cloning (task from )?\S+/\S+( to \S+)?|\S+/\S+ cloned!"
)
STARTING = re.compile(r"Workflow starting \(run-id ([^),]+)\)")
HEAD = re.compile(r"\[[^/\]]+/(?P<task>[^/\]]+/[^ \]]+)( \(pid \d+\))?\]")  # [RUN/STEP/ID (pid N)]
RED = "\x1b[31m{}\x1b[0m"


@contextmanager
def shown(flow: Any) -> Iterator[None]:
    """While this lasts, the lines of a run that this process starts of a flow, its class, are as this module says."""
    with flow_context(flow):  # the options of Metaflow's command line are made of it when that is imported
        from metaflow import cli
    handle, path = tempfile.mkstemp(prefix="wind-run-", suffix=".log")
    before = cli.logger
    with scratch("live") as folder:
        os.environ[REPORTS] = str(folder / "reports.jsonl")
        terminal = _Terminal(flow.__name__, Reader(folder / "reports.jsonl"), handle, Screen(sys.stdout))
        cli.logger = terminal.logged
        try:
            with terminal.drawn():
                print(f"All lines of this run go to {path}")
                yield
        finally:
            cli.logger = before
            del os.environ[REPORTS]
            os.close(handle)
            if terminal.started:
                print(f"{terminal.told_at_end()}; all its lines: {path}")


class _Terminal:
    """What is shown of a run, and what is kept in a file."""

    def __init__(self, flow: str, reader: Reader, log: int, screen: Screen) -> None:
        self._flow, self._reader, self._log, self._screen = flow, reader, log, screen
        self._began = time.monotonic()
        self._picture = Picture(flow, self._began)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.started = False

    def logged(
        self,
        body: str = "",
        system_msg: bool = False,
        head: str = "",
        bad: bool = False,
        timestamp: Any = True,
        **_: Any,
    ) -> None:
        """In the place of `metaflow.cli.logger`, with its arguments: a line of Metaflow's, or of a task."""
        body = body.rstrip("\r")
        at = timestamp if isinstance(timestamp, datetime) else datetime.now()
        self._keep(f"{at:%Y-%m-%d %H:%M:%S} {head}{body}\n")
        found = HEAD.match(head)
        task = found["task"] if found else ""
        with self._lock:
            others = len(self._picture.running) > 1
            if system_msg:
                self._follow(body, task)
        if (not bad and USUAL.fullmatch(body)) if system_msg else (is_meter(body) or is_sign(body)):
            return
        # Of one task alone nobody asks whose line it is, and tables need the room.
        said = visible(f"{task}: {body}" if task and (others or system_msg) else body)
        red = (bad or body.startswith("Task failed")) and not os.environ.get(NO_COLOR)
        self._screen.above(f"{RED.format(said) if red else said}\n")

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """While this lasts, the picture stands at the end of the terminal."""
        thread = threading.Thread(target=self._watch, name="live terminal", daemon=True)
        with self._screen.kept():
            thread.start()
            try:
                yield
            finally:
                self._ended.set()
                thread.join()

    def told_at_end(self) -> str:
        """Which run it was, and how long it took."""
        return f"{self._picture.name} ended after {duration(time.monotonic() - self._began)}"

    def _follow(self, body: str, task: str) -> None:
        """Takes a line of Metaflow's into the picture."""
        now = time.monotonic()
        self.started = True
        if run := STARTING.match(body):
            self._picture.name = f"{self._flow}/{run[1]}"
        elif body.startswith("Cloning "):
            self._picture.resumed = True
        elif task and body.startswith("Task is starting"):
            self._picture.starts(task, now)
        elif task and body.startswith(("Task finished", "Task failed")):
            self._take_in(now)  # what the task said last
            self._picture.ends(task, well=body.startswith("Task finished"))

    def _take_in(self, now: float) -> None:
        for record in self._reader.new():
            self._picture.told(record, now)

    def _keep(self, line: str) -> None:
        with suppress(OSError):  # a disk that is full must not end the run; what is worth keeping is on the terminal
            os.write(self._log, line.encode())

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL):
            if not self.started:
                continue
            size, now = self._screen.size, time.monotonic()
            with self._lock:
                self._take_in(now)
                lines = self._picture.lines(now, datetime.now(), size.columns - 1, size.lines - 2)
            self._screen.draw(lines)
