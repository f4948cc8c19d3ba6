"""One iteration of training, and what it changed."""

from __future__ import annotations

import torch

from components.algorithms.wind import Wind
from components.config.sections import TrainingConfig
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState


def settings(**changed):
    return TrainingConfig(**{"batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, **changed})


def fit(
    policy, data, *, algorithm=None, config=None, optimizer=None, iteration=1, iterations=1, seed=0, since=0, **calls
):
    """One iteration of training with a fresh optimiser unless one is given."""
    config = config or settings()
    state = TrainingState(policy, optimizer or make_optimizer(policy, config), config.micro_batch_size)
    schedule = Schedule(config, iteration, iterations, seed, since)
    return train(state, data, algorithm or Wind(beta=0.02, eta=10.0, clip=None), schedule, **calls)


def weights(policy):
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def assert_same(left, right):
    """Bit for bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
