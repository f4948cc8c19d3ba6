"""The warm process: imports what tasks of a run need, once, and becomes each of them by a fork; see `warm.py`.

It has two file descriptors from the launcher: a socket where `warm_task.py` asks for tasks, and a pipe that closes when
the launcher ends.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import warm_end
from components.runtime.processes import ENDING, GRACE, PARENT
from warm_task import in_place, of_this_user

# What most tasks import; not `metaflow.cli`, whose options are made of the flow when that is imported.
IMPORTED = (
    "metaflow",
    "metaflow.task",
    "pandas",
    "components.generation.transformers",
    "components.reporting.report",
    "components.stages",
    "components.training.on_policy",
)
WAITING = "OMP_WAIT_POLICY"
PASSIVE = {WAITING: "passive"}  # as all tasks have it that are not told otherwise
ENVIRONMENT = PASSIVE | dict(os.environ)
STREAMS = 3  # standard input, output and error
LEAVING = GRACE + 5.0  # seconds after which tasks are killed that were told to end
PATIENCE = 10.0  # seconds for a task to say what it is


class Request(NamedTuple):
    """A task as its process was started."""

    command: list[str]  # the flow's file and its arguments
    environment: dict[str, str]
    folder: str
    streams: list[int]


class Server:
    """Forks tasks when asked, tells how they ended, and ends them with who asked and with the launcher."""

    def __init__(self, listener: socket.socket, lifeline: int) -> None:
        """Args: where tasks ask; a pipe that the launcher closes."""
        self._listener, self._lifeline = listener, lifeline
        self._tasks: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._ended, writer = os.pipe()
        for end in (self._ended, writer):
            os.set_blocking(end, False)
        self._usual = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGCHLD)}
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number, handler in self._usual.items():
            if handler is not signal.SIG_IGN or number == signal.SIGCHLD:
                signal.signal(number, lambda *_: None)  # who started the tasks ends them
        for source in (listener, lifeline, self._ended):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Request:
        """Returns in forks only."""
        while True:
            ready = [key for key, _ in self._selector.select()]
            if any(key.fileobj == self._lifeline for key in ready):
                self._end()
            for key in ready:
                if key.fileobj is self._listener:
                    if request := self._accept():
                        return request
                elif key.fileobj == self._ended:
                    with suppress(BlockingIOError):
                        os.read(self._ended, 512)
                    self._tell()
                elif key.data in self._tasks:  # who stood in the task's place is gone
                    with suppress(ProcessLookupError):
                        os.kill(key.data, signal.SIGKILL)
                    self._selector.unregister(key.fileobj)

    def _accept(self) -> Request | None:
        """In a fork, what it is to be."""
        line, _ = self._listener.accept()
        streams = array.array("i")
        try:
            request = received(line, streams)
            if differences(request.environment):
                raise ValueError("what is imported was imported in another environment")
            # Until the fork has the usual handlers, a signal to it waits.
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            child = os.fork()
        except (OSError, ValueError):  # the task then starts for itself
            child = -1
        if child == 0:
            line.close()
            self._leave()
            return request
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        for stream in streams:
            os.close(stream)
        if child == -1:
            line.close()
        else:
            self._watch(child, line)
        return None

    def _watch(self, child: int, line: socket.socket) -> None:
        self._tasks[child] = line
        with suppress(OSError):  # who asked is gone, as will be seen
            line.sendall(b"%d\n" % child)
        self._selector.register(line, selectors.EVENT_READ, child)

    def _leave(self) -> None:
        """In a fork: nothing of the warm process is left but what it imported."""
        self._selector.close()
        for line in (self._listener, *self._tasks.values()):
            line.close()
        for end in (self._lifeline, self._ended, signal.set_wakeup_fd(-1)):
            os.close(end)
        for number, handler in self._usual.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def _tell(self) -> None:
        for child in [child for child in self._tasks if _has_ended(child)]:
            line = self._tasks.pop(child)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with suppress(KeyError):  # who asked went first
                self._selector.unregister(line)
            with suppress(OSError):
                line.sendall(b"%d\n" % status)
            line.close()

    def _end(self) -> None:
        """The launcher is gone."""
        for child in self._tasks:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        latest = time.monotonic() + LEAVING
        while not all(map(_has_ended, self._tasks)) and time.monotonic() < latest:
            time.sleep(0.05)
        for child in self._tasks:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        sys.exit()


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def received(line: socket.socket, streams: array.array[int]) -> Request:
    """What a task asks for; `streams` takes in its streams. Raises OSError or ValueError, also for another user's."""
    line.settimeout(PATIENCE)
    if not of_this_user(line):
        raise PermissionError("another user's process")
    head, ancillary, _, _ = line.recvmsg(8, socket.CMSG_LEN(STREAMS * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data)
    if len(streams) != STREAMS:
        raise ValueError(f"{len(streams)} streams")
    size, asked = int.from_bytes(head, "big"), b""
    while len(asked) < size:
        part = line.recv(size - len(asked))
        if not part:
            raise ConnectionError("closed")
        asked += part
    line.settimeout(None)
    value = json.loads(asked)
    return Request(value["command"], value["environment"], value["folder"], streams.tolist())


def differences(environment: dict[str, str]) -> list[str]:
    """Variables that a task has otherwise than this process had at its start: libraries read some but once."""
    given = PASSIVE | environment
    names = {*given, *ENVIRONMENT} - {"METAFLOW_RUN_ID", PARENT}
    return sorted(name for name in names if given.get(name) != ENVIRONMENT.get(name))


def become(request: Request, address: str) -> None:
    """Runs a task in this process, a fork; `address` is where the warm process listens."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request.environment, **{PARENT: str(os.getppid())})
    import numpy as np
    import torch

    np.random.seed()  # as in a process of its own; what has to be repeatable has generators of its own
    torch.seed()
    fork_cards(address)
    os.chdir(request.folder)
    sys.argv = request.command
    sys.path[0] = str(Path(request.command[0]).resolve().parent)
    # Not by `runpy`, in a module of its own: Metaflow's classes are in `__main__` for pickle to find them.
    main = vars(sys.modules["__main__"])
    main["__file__"] = request.command[0]
    exec(compile(Path(request.command[0]).read_bytes(), request.command[0], "exec", dont_inherit=True), main)


def fork_cards(address: str) -> None:
    """Metaflow draws a card in a process of its own, which imports all for it: of a fork's task that is a fork too."""
    from metaflow.plugins.cards.card_creator import CardCreator

    usual, prefix = CardCreator._run_command, in_place(address)

    def run(creator: Any, command: list[str], *arguments: Any, **options: Any) -> Any:
        if command[: len(prefix)] != prefix:  # it calls itself with what it was called with
            command = [*prefix, *command]
        return usual(creator, command, *arguments, **options)

    CardCreator._run_command = run


def main(listener: int, lifeline: int) -> None:
    """The warm process, and the tasks that it becomes."""
    os.environ[WAITING] = ENVIRONMENT[WAITING]
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # collecting would write to memory that forks share
    asked = socket.socket(fileno=listener)
    address = asked.getsockname()[1:].decode()
    request = Server(asked, lifeline).serve()
    with warm_end.noted():
        become(request, address)
