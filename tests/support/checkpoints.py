"""Training that is interrupted and continues, of both kinds."""

from __future__ import annotations

from components.config.sections import TrainingConfig
from components.training.checkpoints import training_key

KEY = training_key(test=1)
SETTINGS = TrainingConfig(batch_size=4, micro_batch_size=4, epochs=2, learning_rate=1e-2, checkpoint_steps=2)
N = 12  # prompts: six optimiser steps


def ended(state):
    """Everything that another iteration would begin with."""
    tensors = {name: tensor.clone() for name, tensor in state._tensors().items()}
    return tensors, state.sums, state.drawn, state.done, state.micro_batch_size
