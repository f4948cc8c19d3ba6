"""Configs with which WindFlow does not even begin a run."""

import os
import subprocess
import sys

import pytest

from support.flows.wind_runs import FLOW


@pytest.fixture
def home(tmp_path):
    """Looks like a checkout of the repository."""
    (tmp_path / ".metaflow").mkdir()
    (tmp_path / "flows").symlink_to(FLOW.parent)
    return tmp_path


def refused(home, env, config):
    """What the command says of a config file when it does not even make a run of it."""
    words = [sys.executable, "flows/wind_flow.py", "--no-pylint", "--config", "config", config, "run"]
    before = runs(home)
    result = subprocess.run(words, cwd=home, env=os.environ | env, capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2)
    assert runs(home) == before
    assert "Traceback" not in result.stderr
    assert "resume" not in result.stderr
    return result.stderr


def runs(home):
    return set(home.glob(".metaflow/WindFlow/[0-9]*"))


def test_a_config_that_is_impossible_starts_nothing(home, flow_env):
    (home / "lonely.yaml").write_text("demo: {}\ngeneration: {responses: 1}\n")
    said = refused(home, flow_env, "lonely.yaml")
    assert "generation.responses: 1 is too few, a win rate needs a rival. Use 2 or more." in said


def test_a_config_file_that_is_missing_starts_nothing(home, flow_env):
    assert "nowhere.yaml" in refused(home, flow_env, "nowhere.yaml")


@pytest.mark.slow
def test_a_config_of_180_kilobytes_reaches_the_run_whole(home, flow_env):
    """Longer than a word of a command line may be, and what `start` refuses stands at its end."""
    remark = "# why it is so\n" * 12_000
    judge = "judge: {name: verifier, function: 'nowhere.py:score'}\n"
    (home / "long.yaml").write_text(f"policy: {{model: own}}\nprompts: {{train: own.jsonl}}\n{remark}{judge}")
    words = [sys.executable, "-m", "components.cli", "run", "--config", "long.yaml", "iterations=1"]
    env = os.environ | flow_env | {"PYTHONPATH": str(FLOW.parents[1])}
    done = subprocess.run(words, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere.py" in done.stdout + done.stderr
    assert len(runs(home)) == 1
