"""A first iteration up to its training, for tests that train from it in several ways."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from components import stages
from components.run_config import RunConfig
from components.stages.context import open_workspace
from support.runs import smoke


def slowly(demo: dict[str, int] | None = None, **training) -> RunConfig:
    """The smoke preset at a low rate."""
    return smoke(training={"learning_rate": 1e-4, **training}, demo={"steps": 5, "hidden_size": 16, **(demo or {})})


def sampled_and_scored(root: str, demo: dict[str, int] | None = None) -> tuple[str, stages.TrainInput]:
    """The store, and what the first iteration's training begins with."""
    with open_workspace(slowly(demo), root, "start") as work:
        started = stages.start(work)
        shards = stages.plan(work, started.prompts, 1)
        drawn = [stages.generate(work, started.policy, shard, 1) for shard in shards]
        pairs = zip(drawn, shards, strict=True)
        scored = [stages.score(work, started.policy, started.policy, rollout, shard) for rollout, shard in pairs]
    return root, stages.TrainInput(started.policy, None, shards, scored, 1)


def assert_close_weights(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """To 1e-5 everywhere: Adam makes a step of full size from a gradient that is all rounding. To 1e-6 on average."""
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)
    mean = torch.cat([(found[name] - expected[name]).abs().flatten() for name in expected]).mean()
    assert mean < 1e-6, mean  # a step that is lost or made twice moves each weight by the rate, 1e-4 in these tests
