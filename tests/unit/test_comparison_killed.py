"""A comparison in processes of its own, killed: nobody goes on working for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys
from components.comparison.arms import run_in_process
from support.runs import smoke

if __name__ == "__main__":
    demo = {"steps": 2, "hidden_size": 16}
    compare = {"budget": {"samples": 18_000}}
    config = smoke("compare_smoke", demo=demo, iterations=100, compare=compare)
    run_in_process(config, sys.argv[1], processes=2)
"""


def workers(of: int) -> list[int]:
    """The processes that a process started to run branches."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except FileNotFoundError:  # has ended
            pass
    return found


def wait_for(what, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_branch_outlives_a_killed_comparison(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    roots = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1])))
    given = {**os.environ, "PYTHONPATH": roots}
    process = subprocess.Popen([sys.executable, tmp_path / "program.py", tmp_path / "store"], env=given)
    try:
        wait_for(lambda: process.poll() is not None or len(workers(process.pid)) == 2, 200)
        branches = workers(process.pid)
        assert len(branches) == 2
        time.sleep(5)  # of their imports or of their work
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not any(Path(f"/proc/{branch}").exists() for branch in branches), 60)
