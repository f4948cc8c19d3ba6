"""A process that is to die with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
child.wait()
"""
CHILD = """
import time
from components.runtime.processes import die_with_parent
die_with_parent()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_it_ends_when_its_parent_is_killed(wait_for):
    command = [sys.executable, "-c", PARENT.format(child=CHILD)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline().split()[0])
        assert runs(pid)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not runs(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize(("parent", "status"), [("os.getppid()", 0), ("None", 0), ("os.getpid()", -signal.SIGTERM)])
def test_it_ends_at_once_when_its_parent_is_not_the_one_named(parent, status):
    code = f"import os; from components.runtime.processes import die_with_parent; die_with_parent({parent})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status


def runs(pid):
    try:
        os.kill(pid, 0)
        # A zombie has ended; nobody may be there to collect it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
