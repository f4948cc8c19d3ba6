"""What a command does when nobody takes its output, no disk has room for it, or Ctrl-C comes while it imports."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "METAFLOW_USER": "tester"}
WIND = f"{shlex.quote(sys.executable)} -m components.cli"
FLOW = f"{shlex.quote(sys.executable)} flows/bandit_flow.py"
FULL = "error: output cannot be written (No space left on device). Send it elsewhere.\n"


def shell(line: str) -> tuple[int, str]:
    """The status of the line's first command, and what stands on stderr."""
    words = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(words, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False, timeout=250)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", ["schema", "schema --markdown", "--help", "plan --help", "flow --help"])
def test_an_output_that_nobody_reads(words: str) -> None:
    """Short ones are written at the end alone, long ones on the way."""
    assert shell(f"{WIND} {words} | true") == (141, "")
    assert shell(f"{WIND} {words} > /dev/full") == (1, FULL)


def test_a_flows_output_that_nobody_reads() -> None:
    status, said = shell(f"{FLOW} show | true")
    assert status == 141
    assert "Traceback" not in said
    status, said = shell(f"{FLOW} show > /dev/full")
    assert status == 1
    assert said.endswith(FULL)
    assert "Traceback" not in said


def test_no_output_at_all() -> None:
    words = "schema"
    assert shell(f"{WIND} {words} >&-") == (0, "")
    assert shell(f"{WIND} {words} 2>&- > /dev/null") == (0, "")
    assert shell(f"{WIND} {words} 2>/dev/full > /dev/null") == (0, "")


def test_words_with_control_codes() -> None:
    for words in (
        r"$'sch\e[2J'",
        r"schema $'--x\e[2J'",
        r"run $'x\e[2J'",
        r"schema $'\e]0;mine\a'",
        r"plan $'a\eb'",
    ):
        status, said = shell(f"{WIND} {words}")
        assert status in (1, 2)
        assert "\\x1b" in said
        assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("command", "slow"),
    [
        ([sys.executable, "-m", "components.cli", "schema"], "argparse"),
        ([sys.executable, "flows/wind_flow.py", "show"], "metaflow"),
        ([sys.executable, "flows/compare_flow.py", "show"], "metaflow"),
        ([sys.executable, "flows/bandit_flow.py", "show"], "metaflow"),
    ],
)
def test_ctrl_c_before_a_program_has_begun(tmp_path: Path, command: list[str], slow: str) -> None:
    """It is busy with an import, of which none has begun before."""
    (tmp_path / f"{slow}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    env = {**ENV, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr and process.stderr.read() == "interrupted\n"
