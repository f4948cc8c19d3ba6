"""The machines that train together, as a task of Metaflow's `@parallel` knows them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from metaflow import current

from components.run_config import RunConfig
from components.runtime.processes import children
from components.stages.handover import Node

POD = "METAFLOW_KUBERNETES_WORKLOAD"  # environment variable that pods have
PORT = 29500  # of a pod's own network, so nothing else has it


def this_node(settings: RunConfig) -> Node:
    """Which of `training.nodes` this task is, and where they meet.

    Pods meet at the first one's address. Elsewhere Metaflow runs all nodes on one machine, and they meet by a file:
    there is no port that another run could have taken.
    """
    if settings.training.nodes == 1:
        return Node()
    parallel = current.parallel
    if POD in os.environ:
        return Node(parallel.node_index, parallel.num_nodes, f"tcp://{parallel.main_ip}:{PORT}")
    attempt = f"{current.run_id}/{current.step_name}/{parallel.control_task_id}/{current.retry_count}"
    meeting = (_own_folder() / hashlib.sha256(attempt.encode()).hexdigest()[:16]).as_uri()
    tasks = tasks_of_others(parallel.num_nodes - 1) if parallel.node_index == 0 else ()
    return Node(parallel.node_index, parallel.num_nodes, meeting, tasks)


def tasks_of_others(count: int) -> tuple[int, ...]:
    """Process ids of the other nodes' tasks, which Metaflow has just started as children of the first one's.

    Of one that ends later, the id is then known; its command line goes with it. None where there is no /proc.
    Raises RuntimeError if one has ended already.
    """
    ours = children()
    found = tuple(child for child in ours if b"ubf_task" in _words(child))
    if ours and len(found) < count:
        raise RuntimeError(f"of {count} other nodes' tasks, {count - len(found)} ended before training began.")
    return found


def _words(process: int) -> list[bytes]:
    """A process's command line; a single empty word of one that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def _own_folder() -> Path:
    """A folder of TMPDIR that only this user can enter. Raises PermissionError for one that another has made."""
    folder = Path(tempfile.gettempdir()) / f"wind-meetings-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o77 or folder.is_symlink():
        raise PermissionError(f"{folder}: others can enter it. Remove it, or set TMPDIR to another folder.")
    return folder
