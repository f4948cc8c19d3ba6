"""`wind run` from a terminal: one place that is drawn anew, and above it what is worth keeping; and without one."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from support.flows.wind_runs import INJECT, SMOKE
from support.terminal import Terminal

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "components.cli", "run", "--config", str(SMOKE), "iterations=1"]


@pytest.fixture
def run(tmp_path: Path, flow_env: dict[str, str]):
    """`run(*words, meanwhile, **env)`: the terminal of a run that has ended, and its status."""
    (tmp_path / "scratch").mkdir()
    own = {**os.environ, **flow_env, "TMPDIR": str(tmp_path / "scratch"), "OMP_NUM_THREADS": "1"}

    def start(*words: str, meanwhile=lambda terminal: None, **env: str) -> tuple[Terminal, int]:
        terminal = Terminal([*COMMAND, *words], cwd=tmp_path, env={**own, **env})
        meanwhile(terminal)
        return terminal, terminal.wait(1800)

    return start


def test_a_run_is_one_place_and_what_it_leaves(run, tmp_path: Path) -> None:
    terminal, status = run("--max-workers", "2")
    rows = terminal.screen()
    assert status == 0, "\n".join(rows)
    # Drawn meanwhile: where the run stands, and a line for each task with its bar.
    for drawn in (
        r"WindFlow/\d+ · running for .* · 2 tasks at work",
        r"iteration 1 of 1 · shards done: generate \d of 2.* · expected end of the run: known after iteration 1",
        r"start/1: starting, ",
        r"train_1/\d+: ",
    ):
        assert re.search(drawn, terminal.text), drawn
    # Left at the end: what steps printed, not the place, no bars, and nothing of Metaflow's on tasks.
    whole = "\n".join(rows)
    assert "iteration 1 of 1, win rate 0." in whole
    assert "the policy's win rate against the reference is" in whole
    assert re.search(r"^see every sample +wind samples WindFlow/\d+$", whole, re.MULTILINE)
    assert [row for row in rows if "Task " in row or "running for" in row or "%|" in row] == []
    assert len(rows) < 60, "\n".join(rows)
    # All lines are in the file that is named.
    [log] = (tmp_path / "scratch").glob("wind-run-*.log")
    assert f"All lines of this run go to {log}" in whole
    assert re.search(rf"^WindFlow/\d+ ended after .*; all its lines: {log}$", whole, re.MULTILINE)
    kept = log.read_text()
    assert kept.count("Task is starting.") == kept.count("Task finished successfully.") == 10
    assert "start/1" in kept
    assert "%|" in kept
    assert [path.name for path in (tmp_path / "scratch").glob("wind-live-*")] == []


def test_all_that_a_failed_task_says_is_shown(run) -> None:
    terminal, status = run("--with", INJECT, FAIL_AT="start", FAIL_HOW="raise before")
    whole = "\n".join(terminal.screen())
    assert status == 1, whole
    assert "Traceback (most recent call last):" in whole
    assert "RuntimeError: told to fail at start" in whole
    assert "start/1: Task failed." in whole
    assert re.search(r"To resume it where it failed:\n.*resume --origin-run-id", whole)
    assert "tasks at work" not in whole


def test_a_run_that_is_interrupted_leaves_the_terminal_as_it_should_be(run, tmp_path: Path, wait_for) -> None:
    def interrupt(terminal: Terminal) -> None:
        wait_for(lambda: "fine-tune the demo policy: " in terminal.text, seconds=900)
        terminal.process.send_signal(signal.SIGINT)

    terminal, status = run("demo.steps=1000000", meanwhile=interrupt)
    rows = terminal.screen()
    whole = "\n".join(rows)
    assert status == 130
    assert "Workflow interrupted." in whole
    assert re.search(r"To resume it where it failed:\n.*resume --origin-run-id", whole)
    assert [row for row in rows if "at work" in row or "%|" in row] == []
    assert [path.name for path in (tmp_path / "scratch").glob("wind-live-*")] == []
