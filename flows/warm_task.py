"""Stands in a task's place while a fork of a warm process (`warm.py`) does its work; imports next to nothing.

    python -I -S warm_task.py ADDRESS PYTHON FLOW.py step …

Signals go on to the fork, and however that ends, this process ends. Where no warm process answers, this process
becomes the task itself.
"""

import array
import contextlib
import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def main(address: str, python: str, command: list[str]) -> None:
    """Ends as the task does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until there is a fork to send them to
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rb") as told:
        task = begun(line, address, command) and int(told.readline() or 0)
        if not task:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            os.execv(python, [python, *command])
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: send(task, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        status = int(told.readline() or -signal.SIGTERM)  # nothing: the warm process is gone, and ends its forks so
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def begun(line: socket.socket, address: str, command: "list[str]") -> bool:
    """Whether a warm process was asked for the task."""
    streams = array.array("i", [0, 1, 2])
    try:
        folder = os.getcwd()  # noqa: PTH109 - `pathlib` would take longer to import than all else here
        asked = json.dumps({"command": command, "environment": dict(os.environ), "folder": folder}).encode()
        line.connect("\0" + address)
        line.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        line.sendall(asked)
    except OSError:
        return False
    return True


def send(task: int, number: int) -> None:
    """A signal, unless the task has just ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(task, number)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
