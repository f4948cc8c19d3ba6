"""The optimiser steps of one iteration, whatever their gradient: order, learning rate, memory, progress.

Optimiser state, learning-rate schedule and step count run on from iteration to iteration: resetting them loses
much of what later iterations gain.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from components.config.sections import TrainingConfig
from components.data.seeds import generator
from components.runtime.progress import Progress, Within, silent
from components.training import sharding
from components.training.optimizer import clip_and_step, learning_rate
from components.training.state import TrainingState

logger = logging.getLogger(__name__)
Part = Callable[..., None]  # part(**figures)


def nothing(**figures: float) -> None:
    """A `Part` that nobody watches."""


class Trainer(Protocol):
    """What an optimiser step consists of."""

    def gradient(self, chosen: NDArray[np.int64], part: Part = nothing) -> tuple[float, dict[str, float]]:
        """Adds the gradient for the prompts of these indices; gives the loss and figures to show.

        `part` is told figures of what is done of it.
        """

    def updated(self) -> None:
        """Called when the optimiser has moved the weights."""


@dataclass(frozen=True)
class Schedule:
    """Where an iteration stands in its run, from which the order and the learning rates of its steps follow."""

    settings: TrainingConfig
    iteration: int  # 1-based, over all runs that this one continues from
    iterations: int  # T, of this run
    seed: int  # of the run; fixes the order of prompts
    since: int = 0  # iterations of the runs that this one continues from

    def steps(self, prompts: int) -> int:
        """Optimiser steps of one iteration over so many prompts."""
        return self.settings.epochs * math.ceil(prompts / self.settings.batch_size)

    def order(self, prompts: int, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch visits its prompts; a function of seed, iteration and epoch only."""
        return generator(self.seed, "order", self.iteration, epoch).permutation(prompts)

    def batches(self, prompts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Prompts of each optimiser step, of those with these indices."""
        size = self.settings.batch_size
        for epoch in range(self.settings.epochs):
            visits = prompts[self.order(len(prompts), epoch)]
            yield from (visits[i : i + size] for i in range(0, len(prompts), size))

    def learning_rate(self, step: int, steps: int) -> float:
        """Of step number `step` of this iteration, from 0, where each of the run's iterations has `steps`."""
        before = (self.iteration - 1 - self.since) * steps
        return learning_rate(self.settings, before + step, self.iterations * steps)

    def pace(self, prompts: int) -> float:
        """Mean learning rate of the iteration's steps over so many prompts, as a share of the peak."""
        steps = self.steps(prompts)
        return float(np.mean([self.learning_rate(step, steps) for step in range(steps)])) / self.settings.learning_rate


def run_steps(
    trainer: Trainer,
    state: TrainingState,
    schedule: Schedule,
    prompts: NDArray[np.int64],
    *,
    of: int,
    progress: Progress = silent,
    saved: Callable[[TrainingState], None] = lambda _: None,
) -> dict[str, float]:
    """The optimiser steps that `state` has not done yet.

    Args:
        trainer: gives the gradients.
        state: its model and optimiser are changed in place.
        schedule: order and learning rates.
        prompts: indices of those to visit.
        of: how many prompts the iteration has. The schedule counts what visiting all of them would take, so that every
            iteration has its share of it, however few prompts are left out.
        progress: called after each optimiser step with its figures, and within slow ones.
        saved: called after each optimiser step, to save the state if it is time.

    Returns:
        Means of all steps' figures; none without prompts.

    Raises:
        FloatingPointError: a loss or gradient that is not finite, before it reaches the weights.
    """
    steps, batches = schedule.steps(of), schedule.steps(len(prompts))
    within = Within(progress, state.done, batches)
    for chosen in islice(schedule.batches(prompts), state.done, None):
        rate = schedule.learning_rate(state.done * steps // batches, steps)
        figures = _step(trainer, chosen, state, rate, schedule.settings.max_grad_norm, within.part)
        for key, value in figures.items():
            state.sums[key] = state.sums.get(key, 0.0) + value
        state.done += 1
        saved(state)
        within.step(state.done, **figures)
    return {key: value / batches for key, value in state.sums.items()}


def _step(
    trainer: Trainer, chosen: NDArray[np.int64], state: TrainingState, rate: float, max_grad_norm: float, part: Part
) -> dict[str, float]:
    """Moves the weights once. Dropout stays off: with it, the ratio to pi_t would not start at 1."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    loss, figures = _within_memory(trainer, chosen, state, part)
    norm = clip_and_step(state.policy, state.optimizer, loss, max_grad_norm)
    trainer.updated()
    return {**figures, "grad_norm": norm}


def _within_memory(
    trainer: Trainer, chosen: NDArray[np.int64], state: TrainingState, part: Part
) -> tuple[float, dict[str, float]]:
    """The gradient of an optimiser step; in micro-batches of half the size as often as memory runs out."""
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        try:
            return trainer.gradient(chosen, part)
        except RuntimeError as error:
            if not out_of_memory(error) or state.micro_batch_size == 1 or sharding.world() > 1:
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the activations that did not fit
        state.micro_batch_size = (state.micro_batch_size + 1) // 2
        logger.warning("memory ran out: training continues with micro-batches of %d", state.micro_batch_size)
        torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is torch's word for a device, or a limit of the process, that has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
