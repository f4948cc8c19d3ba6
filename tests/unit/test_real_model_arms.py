"""Arms of the comparison on a real model: one budget, an equal search, and settings that the algorithms take."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.algorithms import BaseAlgorithm
from components.config import registry
from components.config.sections import TrainingConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METHODS = ["wind", "grpo", "sppo", "bond", "dpo", "jbond"]


@pytest.fixture
def arms(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import real_model_arms

    return real_model_arms


@pytest.mark.parametrize("method", METHODS)
def test_a_search_is_twelve_settings_of_one_budget(arms, method):
    found = arms.searched(method)
    assert len({repr({**arm, "name": ""}) for arm in found}) == len({arm["name"] for arm in found}) == 12
    for arm in found:
        assert arm["prompts"] * arm["responses"] * arm["iterations"] == 768
        registry.build("algorithms", arm["algorithm"], BaseAlgorithm)
        TrainingConfig.model_validate({"batch_size": 8, "micro_batch_size": 8, **arm["training"]})


def test_the_best_of_each_method_gets_four_seeds(arms):
    rows = [
        {"arm": one, "met": met}
        for one, met in zip([*arms.searched("wind")[:2], *arms.searched("dpo")[:2]], [0.3, 0.5, 0.4, 0.2], strict=True)
    ]
    found = arms.final([*rows, {"arm": arms.searched("dpo")[2], "failed": "diverged"}])
    names = [arm["name"] for arm in found]
    assert names == ["wind 4x32 3e-05"] * 4 + ["dpo 4x32 2e-05"] * 4 + ["wind 4x32 3e-05, 2 of 4 iterations"] * 4
    assert [arm["seed"] for arm in found] == [0, 1, 2, 3] * 3
    assert [arm["iterations"] for arm in found[-4:]] == [2] * 4


def test_longer_arms_have_the_budget_that_they_are_named_for(arms):
    rows = [{"arm": arms.searched(method)[place], "met": 0.4} for method, place in (("wind", 8), ("jbond", 0))]
    found = arms.longer(rows)
    assert [arm["prompts"] * arm["responses"] * arm["iterations"] for arm in found] == [2112] * 8
    assert [arm["name"] for arm in found[::4]] == ["wind 8x16 4e-05, 22 iterations", "jbond 4x32 2e-05, 22 iterations"]
