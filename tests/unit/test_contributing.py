"""The example algorithm of CONTRIBUTING.md: found by its name alone, configured, and trained with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from components import algorithms
from components.config.errors import ConfigError
from components.config.registry import build
from components.config.sections import TrainingConfig
from components.run_config import parse
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.models.tiny import make_policy, make_scored

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's code as `best_worst.py`, in a folder that the package `components.algorithms` looks into."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "components/algorithms/best_worst.py" in text
    (tmp_path / "best_worst.py").write_text(code, "utf-8")
    monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
    yield code
    monkeypatch.delitem(__import__("sys").modules, "components.algorithms.best_worst", raising=False)


def test_the_example_is_short(example):
    lines = [line for line in example.splitlines() if line.strip() and not line.startswith(("from", "import", '"""'))]
    assert len(lines) <= 20


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
