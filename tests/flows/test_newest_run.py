"""What the notebook says where no run has finished yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.flows.wind_runs import shell

pytestmark = pytest.mark.slow

FLOW = """
import os
os.environ["USERNAME"] = "tester"
from metaflow import FlowSpec, step

class WindFlow(FlowSpec):
    @step
    def start(self):
        open("fine")
        self.next(self.end)

    @step
    def end(self):
        pass

WindFlow()
"""
ASK = ["python", "-c", "from components.stages.runs import newest; print(newest('WindFlow').pathspec)"]


def test_the_newest_finished_run_or_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    run = ["python", "-W", "ignore", "flow.py", "--no-pylint", "run"]
    refusal = f"RunError: WindFlow: no run has finished in the datastore that is used from {tmp_path}. Wait for the end"
    assert refusal in shell(ASK, tmp_path).stderr  # none was ever begun
    assert shell(run, tmp_path).returncode != 0
    assert refusal in shell(ASK, tmp_path).stderr  # the only one has failed
    (tmp_path / "fine").touch()
    done = shell(run, tmp_path)
    assert done.returncode == 0, done.stdout
    found = shell(ASK, tmp_path)
    assert found.stdout.startswith("WindFlow/"), found.stderr
    assert found.stdout.strip().removeprefix("WindFlow/") in done.stdout
