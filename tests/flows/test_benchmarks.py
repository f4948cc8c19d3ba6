"""The search on the smoke preset and the memory of steps: what they print and write; test_compare_flow.py compares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.run_config import parse

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "flows" / "configs" / "compare_smoke.yaml"


def run(script, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_search_lists_trials_best_first(tmp_path):
    config = yaml.safe_load(SMOKE.read_text())
    config["compare"] |= {
        "seeds": [7],
        "arms": {f"ipo.{i}": {"algorithm": {"name": "ipo", "beta": beta}} for i, beta in enumerate((0.1, 1.0))},
    }
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(config))
    run("tune.py", "--config", tmp_path / "search.yaml", "--output", tmp_path / "out" / "search.csv")
    table = pd.read_csv(tmp_path / "out" / "search.csv")
    assert table["algorithm"].tolist() == ["ipo", "ipo"]
    assert table["win_rate"].is_monotonic_decreasing
    assert sorted(table["settings"]) == [
        '{"algorithm": {"beta": 0.1, "name": "ipo"}}',
        '{"algorithm": {"beta": 1.0, "name": "ipo"}}',
    ]


def test_the_arms_of_the_comparison_are_the_best_of_the_equal_search():
    trials = pd.read_csv(ROOT / "benchmarks" / "results" / "equal_search.csv").sort_values("win_rate")
    best = trials.groupby("algorithm")["settings"].last().map(json.loads)
    config = parse((ROOT / "flows" / "configs" / "compare.yaml").read_text())
    for name, settings in best.items():
        arm = config["compare"]["arms"][name]
        assert arm["algorithm"] == settings["algorithm"]
        training = {**config["training"], **arm.get("training", {})}
        assert settings["training"] == {key: training[key] for key in settings["training"]}
        assert arm.get("generation", {}).get("responses", 8) == settings.get("generation", {}).get("responses", 8)


def test_the_first_search_can_be_run_again():
    trials = pd.read_csv(ROOT / "benchmarks" / "results" / "search.csv")
    again = parse((ROOT / "benchmarks" / "search.yaml").read_text())["compare"]["arms"]
    assert {name.rpartition(".")[0] for name in again} == set(trials["algorithm"])


def test_the_equal_search_is_equal_and_the_documents_have_its_table():
    """Six trials of each algorithm with the same samples, but for J-BOND's rounding; settings are those of the file."""
    recorded = ROOT / "benchmarks" / "results" / "equal_search.csv"
    trials = pd.read_csv(recorded)
    assert trials.groupby("algorithm").size().to_dict() == dict.fromkeys(
        ("bond", "dpo", "grpo", "jbond", "sppo", "wind"), 6
    )
    assert trials["samples"].between(14_300, 14_336).all()
    arms = parse((ROOT / "benchmarks" / "equal_search.yaml").read_text())["compare"]["arms"]
    written = {name: (arm["algorithm"]["name"], arm["training"]["learning_rate"]) for name, arm in arms.items()}
    settings = trials.set_index("arm")["settings"].map(json.loads)
    assert {name: (one["algorithm"]["name"], one["training"]["learning_rate"]) for name, one in settings.items()} == (
        written
    )
    assert run("search_table.py", recorded).strip() in (ROOT / "docs" / "comparison.md").read_text("utf-8")


@pytest.mark.slow
def test_memory_of_the_steps_that_hold_an_iteration():
    shown = run("memory.py", "--prompts", 40, "--shards", 2, "--tokens", 20)
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["plan", "gather", "train"]
    assert "prompts 40, responses 200, tokens_generated " in shown
