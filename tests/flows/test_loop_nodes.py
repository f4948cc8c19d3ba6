"""A loop with a step on several nodes, which Metaflow runs as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

SPREAD = Path(__file__).parent / "loop_flows" / "spread.py"


def test_one_node_is_a_plain_step(run_flow):
    run = run_flow(SPREAD, config={"iterations": 2, "nodes": 1}).run
    steps = [step.id for step in reversed(list(run))]
    assert steps == ["start", "plan_1", "train_1", "evaluate_1", "plan_2", "train_2", "evaluate_2", "end"]
    assert run.data.total == 2  # each plan adds one


@pytest.mark.parametrize("victim", ["0", "1"])
def test_two_nodes_are_two_tasks_that_are_joined_also_when_one_was_killed(
    victim, run_flow, flow_env, tmp_path, request
):
    """A kill ends run and fellow. Each iteration adds 1, and the nodes 0 + 2 and 10 + 2: 15 an iteration."""
    if victim == "1":
        request.getfixturevalue("every_kill")
    env = {**os.environ, **flow_env, "KILL": victim}
    command = [sys.executable, str(SPREAD), "--no-pylint", "run", "--run-id-file", str(tmp_path / "id")]
    begin = time.monotonic()
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert time.monotonic() - begin < 200  # of the 300 that a fellow would wait
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert pids
    assert [pid for pid in pids if is_alive(pid)] == []
    again = run_flow(SPREAD, resume=(tmp_path / "id").read_text()).run
    assert [len(list(again[f"train_{t}"])) for t in (1, 2)] == [2, 2]
    assert again.data.total == 30


def is_alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
