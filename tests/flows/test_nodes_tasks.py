"""What the first node's task knows of the others' tasks, which Metaflow starts as its children."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from components.runtime.processes import failed
from components.runtime.scratch import scratch


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


def test_the_last_node_to_leave_removes_the_folder_where_they_met(tmp_path, monkeypatch):
    """torch removes the file there when the last process has left it."""
    from nodes import MEETING, _meeting

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _meeting("1/train_1/2/0", first=True) as folder:
        with _meeting("1/train_1/2/0", first=False) as same:
            assert same == folder
            (folder / MEETING).touch()
        (folder / MEETING).unlink()
    assert list(tmp_path.iterdir()) == []
    with _meeting("1/train_1/2/0", first=True) as one, _meeting("1/train_1/2/1", first=True) as other:
        assert one != other
    one.mkdir()
    one.chmod(0o755)
    with pytest.raises(PermissionError, match="others can enter it"), _meeting("1/train_1/2/0", first=False):
        pass


@pytest.mark.slow
def test_what_killed_nodes_leave_goes_when_the_next_task_starts(tmp_path):
    code = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from nodes import MEETING, _meeting
with _meeting("1/train_1/2/0", first=True) as folder:
    (folder / MEETING).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    import nodes

    flows = str(Path(nodes.__file__).parent)
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, flows], env=env, check=False, timeout=120)
    assert len(list(tmp_path.glob("wind-meeting-*/meeting"))) == 1
    with scratch("train", tmp_path):
        assert list(tmp_path.glob("wind-meeting-*")) == []
