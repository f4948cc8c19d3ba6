"""Processes: that do not outlive the one that started them, that clean up when told to end, and who is who."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Literal

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
GRACE = 30.0  # seconds to clean up in
PARENT = "WIND_PARENT"  # environment variable: process id of what started a task in the launcher's place


def die_with_parent(parent: int | None = None) -> None:
    """Has this process end with SIGTERM when its parent dies, however that does; on Linux only.

    A launcher that is killed would else leave its tasks running, and they their helpers.

    To Linux the parent is the thread that started this process (prctl(2)). A thread that ends earlier takes it along:
    `multiprocessing.Pool` starts processes from one that does.

    Args:
        parent: its process id; then a parent that died before this call counts too. Who is in its place tells nothing:
            in a container, process 1 may well be the parent, and on a desktop orphans go to another process.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def end_in_order(grace: float = GRACE) -> None:
    """Has SIGTERM, SIGHUP and SIGINT end this process as `sys.exit` does, so that what it holds is cleaned up.

    A signal that is ignored, as under nohup, stays so. After `grace` seconds the process ends in any case: a call into
    a library may never come back to see the signal.
    """

    def end(number: int, _: FrameType | None) -> None:
        _ignore_further()
        raise SystemExit(128 + number)

    for number in _heeded():
        signal.signal(number, end)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(reader, grace), name="end-in-order", daemon=True).start()


def end_with_children() -> list[int]:
    """Has the same signals end this process's children by SIGTERM, and then itself as Ctrl-C does.

    Returns a list to which the signal that came is added.
    """
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        _ignore_further()
        came.append(number)
        for child in children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        raise KeyboardInterrupt

    for number in _heeded():
        signal.signal(number, end)
    return came


def children() -> list[int]:
    """Process ids of this process's children; none where there is no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.name))
    return found


def failed(child: int) -> bool:
    """Whether a child has ended otherwise than well; whoever started it can still wait for it."""
    try:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # was waited for
        return False
    return ended is not None and (ended.si_code != os.CLD_EXITED or ended.si_status != 0)


def _heeded() -> list[signal.Signals]:
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def _ignore_further() -> None:
    """A second signal must not interrupt the cleaning up."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _insist(reader: int, grace: float) -> None:
    while (number := os.read(reader, 1)[0]) not in ENDING:
        pass
    time.sleep(grace)
    os._exit(128 + number)


def identity(pid: int | None = None) -> dict[str, str | int]:
    """What tells a process, by default this one, from every other: also one that has its number later, or elsewhere.

    Plain JSON data, for `state`.
    """
    pid = os.getpid() if pid is None else pid
    return {"machine": _machine(), "boot": _boot(), "pid": pid, "started": _started(pid)}


def state(process: object) -> Literal["alive", "ended", "unknown"]:
    """How the process of an `identity` fares; unknown if it is of another machine or container, or not an identity."""
    if not isinstance(process, dict) or not isinstance(process.get("pid"), int) or process.get("machine") != _machine():
        return "unknown"
    if process.get("boot") != _boot():
        return "ended"  # with the machine
    return "alive" if _started(process["pid"]) == process.get("started") != "" else "ended"


def _machine() -> str:
    """This machine, also after it has started again, or this container, whose process ids mean other processes."""
    names = [socket.gethostname()]
    with suppress(OSError):
        names.append(str(Path("/proc/self/ns/pid").readlink()))
    for file in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            names.append(Path(file).read_text().strip())
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]  # a machine's id is nobody else's business


def _boot() -> str:
    """The kernel's start, since when process ids mean what they mean."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since the kernel's start; "" if there is none of this id, or it is a zombie."""
    if not Path("/proc/self/stat").exists():  # no Linux: the id alone must do
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:  # another user's
            return "runs"
        return "runs"
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
