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
