"""The machines that train together, as a task of Metaflow's `@parallel` knows them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metaflow import current

from components.run_config import RunConfig
from components.runtime import scratch
from components.runtime.processes import children
from components.stages.handover import Node

POD = "METAFLOW_KUBERNETES_WORKLOAD"  # environment variable that pods have
PORT = 29500  # of a pod's own network, so nothing else has it
MEETING = "meeting"  # the file


@contextmanager
def this_node(settings: RunConfig) -> Iterator[Node]:
    """Which of `training.nodes` this task is, and where they meet in the block.

    Pods meet at the first one's address. Elsewhere Metaflow runs all nodes on one machine, and they meet by a file:
    there is no port that another run could have taken. Its folder is the first node's, and goes as a step's does.
    """
    if settings.training.nodes == 1:
        yield Node()
        return
    parallel = current.parallel
    if POD in os.environ:
        yield Node(parallel.node_index, parallel.num_nodes, f"tcp://{parallel.main_ip}:{PORT}")
        return
    attempt = f"{current.run_id}/{current.step_name}/{parallel.control_task_id}/{current.retry_count}"
    with _meeting(attempt, first=parallel.node_index == 0) as folder:
        tasks = tasks_of_others(parallel.num_nodes - 1) if parallel.node_index == 0 else ()
        yield Node(parallel.node_index, parallel.num_nodes, (folder / MEETING).as_uri(), tasks)


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


@contextmanager
def _meeting(attempt: str, *, first: bool) -> Iterator[Path]:
    """A folder of TMPDIR for the nodes of an attempt at a task, which only this user can enter.

    The last node to leave removes it: the file by which they meet goes with the last of their processes. What killed
    ones leave goes as an abandoned scratch folder. Raises PermissionError for a folder that another has made.
    """
    name = hashlib.sha256(f"{os.getuid()}/{attempt}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"{scratch.MEETINGS}{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o77 or folder.is_symlink():
        raise PermissionError(f"{folder}: others can enter it. Remove it, or set TMPDIR to another folder.")
    if first:
        scratch.own(folder)
    try:
        yield folder
    finally:
        if not (folder / MEETING).exists():
            shutil.rmtree(folder, ignore_errors=True)
