"""Responses drawn as a run's first iteration does, for benchmarks that time it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who sets threads or cores does so before torch is imported
    from components.data.records import Prompt, Rollout
    from components.generation import Engine
    from components.policy.model import Policy


def drawn(policy: Policy, engine: Engine, prompts: Sequence[Prompt], responses: int, tokens: int) -> Rollout:
    """So many responses of at most so many tokens to each prompt, by the seed 0."""
    from components.generation import Sampling
    from components.stages import sampling

    return sampling.generate(
        policy,
        engine,
        prompts,
        responses=responses,
        sampling=Sampling(tokens),
        seed=0,
        purpose="train",
        iteration=1,
    )
