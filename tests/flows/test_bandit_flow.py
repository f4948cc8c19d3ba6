"""The laboratory as a user runs it: results, terminal, card; a failure and its resume; a config that is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.bandit.config import LabConfig, parse
from components.bandit.laboratory import cells, play, sample_complexity
from support.flows.flow_home import card_content
from support.flows.wind_runs import INJECT, NOBODY

pytestmark = pytest.mark.thorough

FLOW = Path(__file__).parents[2] / "flows" / "bandit_flow.py"
SMOKE = FLOW.parent / "configs" / "bandit" / "smoke.yaml"
TINY = {
    "seeds": [0],
    "iterations": 3,
    "methods": {"wind": {}, "bond": {}},
    "settings": {"reward": {"prompts": 1, "responses": 4}},
    "sampling": {"samples": [16, 32], "repeats": 2},
}


def without_prefixes(stdout):
    """What tasks printed, without what Metaflow puts before each line."""
    return re.sub(r"^\S+ \S+ \[\S+ \(pid \d+\)\] ?", "", stdout, flags=re.MULTILINE)


def shown(command, folder):
    result = subprocess.run(command, cwd=folder, env=os.environ | NOBODY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_run_of_the_smoke_preset(run_flow, tmp_path, monkeypatch):
    for name, value in {"METAFLOW_HOME": tmp_path, "METAFLOW_DATASTORE_SYSROOT_LOCAL": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    result = run_flow(FLOW, config=SMOKE, env=NOBODY)
    lab = LabConfig.model_validate(parse(SMOKE.read_text()))

    data = result.run.data
    expected = pd.concat([play(lab, cell) for cell in cells(lab)], ignore_index=True)
    pd.testing.assert_frame_equal(data.results, expected, check_exact=True)
    assert {step.id: len(list(step)) for step in result.run} == {
        "start": 1,
        "play": 6,
        "gather": 1,
        "sample": 1,
        "end": 1,
    }
    assert len(data.errors) == 2 * 2 * 3  # seeds, samples, repeats
    assert (data.errors["error"] > 0).all()

    said = without_prefixes(result.stdout)
    rows = [re.split("  +", line)[:2] for line in said.splitlines() if line.startswith(("reward ", "cyclic "))]
    assert rows == [["reward", "wind"], ["reward", "bond"], ["cyclic", "wind"]]
    assert f"python {FLOW} card view {result.run.id}/end" in said
    read = re.search(r"^read the results +python -c '(.*)'$", said, re.MULTILINE)[1]
    assert shown([sys.executable, "-c", read], tmp_path) == expected.to_string() + "\n"

    page = tmp_path / "report.html"
    shown([sys.executable, str(FLOW), "--no-pylint", "card", "get", f"{result.run.id}/end", str(page)], tmp_path)
    card = card_content(page.read_text())
    assert f"# BanditFlow/{result.run.id}" in card
    assert card.count("data:image/png;base64,") == 3
    assert "Convergence with and without mixing" in card


@pytest.mark.slow
def test_a_failed_run_resumes_where_it_failed(run_flow):
    lab = LabConfig.model_validate(parse(yaml.safe_dump(TINY, sort_keys=False)))
    fault = {"FAIL_AT": "play/1", "FAIL_HOW": "raise before"}
    failed = run_flow(FLOW, config=TINY, env=fault, status="failed", decospecs=[INJECT], max_workers=1)
    assert sorted(task.successful for task in failed.run["play"]) == [False, True]
    command = re.search(r"^  python (\S+) resume --origin-run-id (\S+)$", failed.stderr, re.MULTILINE)
    assert command.groups() == (str(FLOW), failed.run.id)

    run = run_flow(FLOW, resume=failed.run.id).run
    cloned = [task.index for task in run["play"] if "origin-task-id" in task.metadata_dict]
    assert cloned == [0]
    results = pd.concat([play(lab, cell) for cell in cells(lab)], ignore_index=True)
    pd.testing.assert_frame_equal(run.data.results, results, check_exact=True)
    pd.testing.assert_frame_equal(run.data.errors, sample_complexity(lab.sampling, seed=0), check_exact=True)


def test_a_config_that_is_impossible_starts_nothing(tmp_path, flow_env):
    (tmp_path / "mine.yaml").write_text("settings: {cyclic: {}}\n")
    words = [sys.executable, str(FLOW), "--no-pylint", "--config", "config", "mine.yaml", "run"]
    result = subprocess.run(words, cwd=tmp_path, env=os.environ | flow_env, capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2)
    assert "settings.cyclic: bond cannot play it, best-of-N needs a reward order" in result.stderr
    assert "Traceback" not in result.stderr
    assert "resume" not in result.stderr
    assert not (tmp_path / ".metaflow" / "BanditFlow").exists()
