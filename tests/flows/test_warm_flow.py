"""Tasks of a run on this machine: forks of a process that has imported what they need, or processes that start anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.flows.flow_home import Home

SMALL = """
import os, sys
from pathlib import Path
from metaflow import FlowSpec, card, step
from launcher import main

def here():
    return "torch" in sys.modules, os.getppid() == int(os.environ["WIND_LAUNCHER"]), os.environ.get("HF_HOME")

if "card" in sys.argv:
    Path("drawn").write_text(str("torch" in sys.modules))

class Small(FlowSpec):
    @step
    def start(self):
        self.found = here()
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self):
        print("found", self.found, here())

if __name__ == "__main__":
    main(Small)
"""
WARM, ANEW, OTHER = (True, False, None), (False, True, None), (False, True, "/elsewhere")


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ([], {}, WARM),
        ([], {"WIND_WARM": "0"}, ANEW),
        (["--with", 'environment:vars={"HF_HOME": "/elsewhere"}'], {}, OTHER),
    ],
)
def test_where_tasks_come_from(tmp_path: Path, options, variables, expected) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    environment = {**Home(tmp_path).env, **variables}
    environment.pop("HF_HOME", None)
    command = [sys.executable, "small.py", "--no-pylint", *options, "run"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))):
        expected = (False, True, expected[2])
    assert f"found {expected} {expected}" in done.stdout
    assert (tmp_path / "drawn").read_text() == str(expected[0])
    assert [path.suffix for path in tmp_path.rglob("cards/*")] == [".html"]
