"""The machines that train together, as a task of Metaflow's `@parallel` knows them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from metaflow import current

from components.run_config import RunConfig
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
        meeting = f"tcp://{parallel.main_ip}:{PORT}"
    else:
        attempt = f"{current.run_id}/{current.step_name}/{parallel.control_task_id}/{current.retry_count}"
        meeting = (_own_folder() / hashlib.sha256(attempt.encode()).hexdigest()[:16]).as_uri()
    return Node(parallel.node_index, parallel.num_nodes, meeting)


def _own_folder() -> Path:
    """A folder of TMPDIR that only this user can enter. Raises PermissionError for one that another has made."""
    folder = Path(tempfile.gettempdir()) / f"wind-meetings-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o77 or folder.is_symlink():
        raise PermissionError(f"{folder}: others can enter it. Remove it, or set TMPDIR to another folder.")
    return folder
