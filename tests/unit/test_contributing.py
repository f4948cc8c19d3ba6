"""The examples of CONTRIBUTING.md: found by their names alone, configured, and used."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jsonschema import Draft202012Validator

from components import algorithms, generation, judges, trackers
from components.cli import reference
from components.cli.schema import schema
from components.config.errors import ConfigError
from components.config.registry import build, find
from components.config.sections import TrainingConfig
from components.generation import Sampling
from components.run_config import RunConfig, parse
from components.stages import tracking
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.models.tiny import make_policy, make_prompts, make_scored

ROOT = Path(__file__).parents[2]


def installed(package, name, tmp_path, monkeypatch):
    """The code that the text names so, in a folder that the package looks into."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    module = f"{package.__name__}.{name}"
    (code,) = re.findall(rf"`{module.replace('.', '/')}\.py`[^`]*:\n\n?```python\n(.*?)```", text, re.DOTALL)
    folder = tmp_path / package.__name__  # its own, or each package would find what others are given
    folder.mkdir()
    (folder / f"{name}.py").write_text(code, "utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield code
    sys.modules.pop(module, None)


@pytest.fixture
def example(tmp_path, monkeypatch):
    yield from installed(algorithms, "best_worst", tmp_path, monkeypatch)


@pytest.fixture
def tracker(tmp_path, monkeypatch):
    yield from installed(trackers, "csv_file", tmp_path, monkeypatch)


@pytest.fixture
def judge(tmp_path, monkeypatch):
    yield from installed(judges, "shorter", tmp_path, monkeypatch)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    yield from installed(generation, "one_by_one", tmp_path, monkeypatch)


def test_the_examples_are_short(example, tracker, judge, engine):
    for code, most in ((example, 20), (tracker, 20), (judge, 20), (engine, 40)):
        lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("from", "import", '"""'))]
        assert len(lines) <= most


def test_the_reference_and_editors_know_the_examples(example, tracker, judge, engine):
    page = reference.page()
    for heading in ("algorithm: best_worst", "judge: shorter", "engine: one_by_one", "trackers: csv_file"):
        assert f"\n### {heading}\n" in page
    assert "| `scale` | number > 0 | `0.1` | of the log-ratios in the margin |" in page
    assert "| `folder` | text | required | directory, made if it is not there |" in page
    editor = Draft202012Validator(schema())
    own = {
        "demo": {},
        "algorithm": {"name": "best_worst", "scale": 0.2},
        "judge": {"name": "shorter"},
        "generation": {"engine": {"name": "one_by_one"}},
        "trackers": [{"name": "csv_file", "folder": "metrics"}],
    }
    assert editor.is_valid(own)
    assert not editor.is_valid({**own, "algorithm": {"name": "best_worst", "scale": -1}})
    assert not editor.is_valid({**own, "trackers": [{"name": "csv_file"}]})


def test_a_plug_in_without_its_name_is_refused(example, tmp_path):
    """Else the schema would take any name for its own."""
    (tmp_path / algorithms.__name__ / "best_worst.py").write_text(
        example.replace('    name: Literal["best_worst"] = "best_worst"\n', "")
    )
    with pytest.raises(TypeError, match=r"BestWorst must have `name: Literal\['best_worst'\] = 'best_worst'`"):
        find("algorithms", "best_worst", algorithms.BaseAlgorithm)


def test_the_tracker_is_told(tracker, tmp_path):
    tmp_path /= "metrics"  # which is not there yet
    config = parse(f"demo: {{}}\niterations: 2\ntrackers: [{{name: csv_file, folder: {tmp_path}}}]")
    settings = RunConfig.model_validate(config)
    assert tracking.begin(settings, str(tmp_path / "store"), "WindFlow/17")["csv_file"] == f"{tmp_path}/WindFlow-17.csv"
    history = pd.DataFrame({"iteration": [1, 2], "win_rate": [0.5, 0.625]})
    for count in (1, 1, 2):
        tracking.log(settings, str(tmp_path / "store"), "WindFlow/17", history[:count], 0)
    assert (tmp_path / "WindFlow-17.csv").read_text() == "iteration,win_rate\n1,0.5\n2,0.625\n"


def test_the_example_runs_by_its_name(example):
    algorithm = parse("demo: {}\nalgorithm: {name: best_worst, scale: 0.2}")["algorithm"]
    assert algorithm == {"name": "best_worst", "scale": 0.2}
    with pytest.raises(ConfigError, match=r"algorithm.scale: -1 cannot be used"):
        parse("demo: {}\nalgorithm: {name: best_worst, scale: -1}")


def test_the_example_trains(example):
    """One step raises the margin of the best over the worst."""
    policy = make_policy(dtype=torch.float64)
    data = make_scored(policy, n=8, k=4)
    settings = TrainingConfig(batch_size=8, micro_batch_size=8, learning_rate=1e-3, warmup_ratio=0.0)
    algorithm = build("algorithms", {"name": "best_worst"}, algorithms.Algorithm)
    schedule = Schedule(settings, 1, 1, seed=0)
    states = [TrainingState(policy, make_optimizer(policy, settings), 8) for _ in range(2)]
    losses = [train(state, data, algorithm, schedule)["loss"] for state in states]
    assert losses[1] < losses[0]


def test_the_judge_decides(judge):
    config = RunConfig.model_validate(parse("demo: {}\njudge: {name: shorter}"))
    config.judge.check()
    found = config.judge.judge(make_prompts(1), [["abc", "a", "abc"]])
    assert found.reward.tolist() == [[-3, -1, -3]]
    assert found.preference.tolist() == [[[0.5, 0, 0.5], [1, 0.5, 1], [0.5, 0, 0.5]]]


def test_the_engine_draws(engine):
    """The same for the same seeds, and each response to its end or to the limit."""
    config = RunConfig.model_validate(parse("demo: {}\ngeneration: {engine: {name: one_by_one}, max_new_tokens: 5}"))
    policy, sampler = make_policy(), config.generation.engine
    sampler.check()
    prompts, seeds = [np.array([3, 4]), np.array([5])], np.arange(6, dtype=np.uint64).reshape(2, 3)
    whole = sampler.sample(policy, prompts, seeds, Sampling.of(config.generation))
    again = sampler.sample(policy, prompts[1:], seeds[1:], Sampling.of(config.generation))
    rows = [whole.tokens[i].tolist() for i in range(6)]
    assert [again.tokens[i].tolist() for i in range(3)] == rows[3:]
    assert len({tuple(row) for row in rows}) > 1
    for row, finished in zip(rows, whole.finished.reshape(-1), strict=True):
        assert finished == (row[-1] in policy.eos_ids)
        assert finished or len(row) == 5
