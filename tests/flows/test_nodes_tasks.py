"""What the first node's task knows of the others' tasks, which Metaflow starts as its children."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from components.runtime.processes import failed


def test_a_task_is_known_by_its_id_also_when_it_has_been_killed():
    from nodes import tasks_of_others

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "ubf_task"]) as task:
        known = tasks_of_others(1)
        task.kill()
        os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOWAIT)
        assert known == (task.pid,)
        assert failed(task.pid)
        with pytest.raises(RuntimeError, match=r"^of 1 other nodes' tasks, 1 ended before training"):
            tasks_of_others(1)
