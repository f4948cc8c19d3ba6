"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent(parent: int | None = None) -> None:
    """Has this process end with SIGTERM when its parent dies, however that does; on Linux only.

    A launcher that is killed would else leave its tasks running, and they their helpers.

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
