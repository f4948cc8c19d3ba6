"""Stands in a task's place while a fork of a warm process (`warm.py`) does its work; imports next to nothing.

    python -I -S warm_task.py ADDRESS PYTHON FLOW.py step …

Signals go on to the fork, and however that ends, this process ends. Where no warm process answers, this process
becomes the task itself.
"""

import array
import contextlib
import io
import json
import os
import select
import signal
import socket
import struct
import sys

LEAVING = 40.0  # seconds, more than a task takes to clean up
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def main(address: str, python: str, command: list[str]) -> None:
    """Ends as the task does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there is a fork to send them to
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rb") as told:
        task = begun(line, told, address, command)
        if not task:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            os.execv(python, [python, *command])
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: send(task, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        status = ended(task, told)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def in_place(address: str) -> "list[str]":
    """What to put before the command of a process for which the warm process at this address is to stand in."""
    return [sys.executable, "-I", "-S", __file__, address]


def begun(line: socket.socket, told: "io.BufferedReader", address: str, command: "list[str]") -> int:
    """The process id of the fork; 0 if there is none."""
    streams = array.array("i", [0, 1, 2])
    try:
        folder = os.getcwd()  # noqa: PTH109 - `pathlib` would take longer to import than all else here
        asked = json.dumps({"command": command, "environment": dict(os.environ), "folder": folder}).encode()
        line.connect("\0" + address)
        if not of_this_user(line):
            return 0  # another one has taken the address
        line.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        line.sendall(asked)
        return int(told.readline() or 0)
    except OSError:
        return 0


def of_this_user(line: socket.socket) -> bool:
    """Whether the process at the other end is this process's user's."""
    process_user_group = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", process_user_group)[1] == os.getuid())


def ended(task: int, told: "io.BufferedReader") -> int:
    """How the fork ended, as `subprocess` has it; when the warm process dies, its forks end by SIGTERM."""
    watched = []
    with contextlib.suppress(OSError):  # has ended already
        watched.append(os.pidfd_open(task))
    with contextlib.suppress(OSError):
        if status := told.readline():
            return int(status)
    if watched:
        select.select(watched, [], [], LEAVING)
    return -signal.SIGTERM


def send(task: int, number: int) -> None:
    """A signal, unless the task has just ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(task, number)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
