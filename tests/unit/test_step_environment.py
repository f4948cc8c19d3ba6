"""What a task's process finds in its environment before it imports torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FLOWS = Path(__file__).parents[2] / "flows"
TASK = """
import sys
sys.path.insert(0, sys.argv.pop())
import os, launcher
from metaflow import FlowSpec
assert "torch" not in sys.modules

class Flow(FlowSpec):
    def __init__(self):
        print(os.environ["OMP_WAIT_POLICY"])

launcher.main(Flow)
"""


@pytest.mark.thorough(but=["passive"])
@pytest.mark.parametrize(("given", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_wait_asleep_unless_told_otherwise(tmp_path, given, found):
    flow = tmp_path / "flow.py"
    flow.write_text(TASK)
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | {"USERNAME": "tester"}
    command = [sys.executable, str(flow), "step", str(FLOWS)]
    done = subprocess.run(command, cwd=FLOWS.parent, env=env | given, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [found], done.stderr
