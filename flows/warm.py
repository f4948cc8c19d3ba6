"""A warm process: what tasks import is imported once in a run on this machine, and each task is a fork of it.

Importing Metaflow, torch and transformers takes five seconds of a core, in every task, and drawing one of its cards
another two. A task begins as `warm_task.py`,
which imports nothing: Metaflow has that process's number and output, what kills it kills the fork, and it ends as
the fork does. A task for which there is no warm process is an ordinary one, as all are where there are GPUs, whose
driver does not bear forks, where there is no Linux, and with `WIND_WARM=0`.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from metaflow.runtime import CLIArgs

from components.runtime.processes import GRACE
from warm_task import in_place

HERE = Path(__file__).parent
SWITCH = "WIND_WARM"  # environment variable: 0 for ordinary tasks
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
LEAVING = GRACE + 10.0  # seconds for the warm process to end in, which first ends its tasks


@contextmanager
def warmed() -> Iterator[None]:
    """While this lasts, tasks that this process starts are forks of a warm process, which the first of them starts."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or any(map(os.path.exists, GPU_DRIVERS)):
        yield
        return
    usual = CLIArgs.get_args
    with ExitStack() as stack:
        address = cache(lambda: stack.enter_context(_server()))

        def warm(arguments: Any) -> list[str]:
            command: list[str] = usual(arguments)
            if arguments.commands != ["step"] or command[0] != sys.executable:
                return command  # on a cluster, or in an environment of its own
            return [*in_place(address()), *command]

        CLIArgs.get_args = warm
        try:
            yield
        finally:
            CLIArgs.get_args = usual


@contextmanager
def _server() -> Iterator[str]:
    """A warm process while this lasts; its address."""
    address = f"wind-{os.getpid()}-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen(1024)
        lifeline, mine = os.pipe()
        server = _start(listener.fileno(), lifeline)
    os.close(lifeline)
    try:
        yield address
    finally:
        os.close(mine)
        with suppress(subprocess.TimeoutExpired):
            server.wait(LEAVING)


def _start(listener: int, lifeline: int) -> subprocess.Popen[bytes]:
    # A broken installation is told by the tasks, which then import for themselves.
    silent = subprocess.DEVNULL
    # Not as a script: `__main__` is left to the tasks.
    lines = f"sys.path[0] = {str(HERE)!r}", "import warm_end, warm_server", f"warm_server.main({listener}, {lifeline})"
    command = [sys.executable, "-c", "; ".join(["import sys", *lines])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "x"}  # as tasks have it
    return subprocess.Popen(
        command, pass_fds=(listener, lifeline), env=environment, stdin=silent, stdout=silent, stderr=silent
    )
