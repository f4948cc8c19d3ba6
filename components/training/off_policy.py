"""One iteration's update of the policy: the algorithm's loss over grouped mini-batches.

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

from components.algorithms import Algorithm
from components.config.sections import TrainingConfig
from components.data.records import Scored
from components.data.seeds import generator
from components.runtime.progress import Progress, silent
from components.training import sharding
from components.training.groups import Selection, group_of, length_for, selected
from components.training.optimizer import clip_and_step, learning_rate
from components.training.state import TrainingState

logger = logging.getLogger(__name__)


class Trainer(Protocol):
    """What an optimiser step consists of."""

    def gradient(self, chosen: NDArray[np.int64]) -> tuple[float, dict[str, float]]:
        """Adds the gradient for the prompts of these indices; gives the loss and figures to show."""

    def updated(self) -> None:
        """Called when the optimiser has moved the weights."""


def steps_per_iteration(settings: TrainingConfig, prompts: int) -> int:
    """Optimiser steps of one iteration."""
    return settings.epochs * math.ceil(prompts / settings.batch_size)


def order(prompts: int, *, seed: int, iteration: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its prompts; a function of its arguments only."""
    return generator(seed, "order", iteration, epoch).permutation(prompts)


def train(
    state: TrainingState,
    data: Scored,
    algorithm: Algorithm,
    settings: TrainingConfig,
    *,
    iteration: int,
    iterations: int,
    seed: int,
    since: int = 0,
    progress: Progress = silent,
    saved: Callable[[TrainingState], None] = lambda _: None,
) -> dict[str, float]:
    """Trains pi_theta from pi_t in place.

    Args:
        state: pi_t, its model becoming pi_{t+1}, and the optimiser, its state restored after the first iteration.
        data: responses of pi_t with log-probs and preferences.
        algorithm: gives the loss.
        settings: batch sizes and schedule.
        iteration: 1-based.
        iterations: T, for the schedule over the whole run.
        seed: of the run; fixes the order of prompts.
        since: iterations of the runs that this one goes on from.
        progress: called after each optimiser step with loss and gradient norm.
        saved: called after each optimiser step, to save the state if it is time.

    Returns:
        Means over the iteration: loss, grad_norm, logp_change (nats per response).

    Raises:
        FloatingPointError: a loss or gradient that is not finite, before it reaches the weights.
    """
    selection = selected(data, algorithm)
    return run_steps(
        OffPolicyTrainer(state, data, selection, algorithm),
        state,
        settings,
        np.flatnonzero(algorithm.informative(selection.win_rate)),
        steps=steps_per_iteration(settings, len(selection.win_rate)),
        iteration=iteration,
        iterations=iterations,
        seed=seed,
        since=since,
        progress=progress,
        saved=saved,
    )


def run_steps(
    trainer: Trainer,
    state: TrainingState,
    settings: TrainingConfig,
    prompts: NDArray[np.int64],
    *,
    steps: int,
    iteration: int,
    iterations: int,
    seed: int,
    since: int = 0,
    progress: Progress = silent,
    saved: Callable[[TrainingState], None] = lambda _: None,
) -> dict[str, float]:
    """The optimiser steps that `state` has not done yet; means of all steps' figures, none without prompts.

    `prompts` are the indices of those to visit; `steps` is what visiting all of the iteration's prompts would take. The
    schedule counts those, so that every iteration has its share of it, however few prompts are left out.
    """
    total, batches = iterations * steps, steps_per_iteration(settings, len(prompts))
    before = (iteration - 1 - since) * steps
    # Dropout stays off: with it, the ratio to pi_t would not start at 1.
    for chosen in islice(_batches(prompts, settings, iteration, seed), state.done, None):
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(settings, before + state.done * steps // batches, total)
        loss, figures = _within_memory(trainer, chosen, state)
        norm = clip_and_step(state.policy, state.optimizer, loss, settings.max_grad_norm)
        trainer.updated()
        figures = {**figures, "grad_norm": norm}
        for key, value in figures.items():
            state.sums[key] = state.sums.get(key, 0.0) + value
        state.done += 1
        saved(state)
        progress(state.done, batches, **figures)
    return {key: value / batches for key, value in state.sums.items()}


def _within_memory(trainer: Trainer, chosen: NDArray[np.int64], state: TrainingState) -> tuple[float, dict[str, float]]:
    """The gradient of an optimiser step; in micro-batches of half the size as often as memory runs out."""
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        try:
            return trainer.gradient(chosen)
        except RuntimeError as error:
            if not out_of_memory(error) or state.micro_batch_size == 1 or sharding.world() > 1:
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the activations that did not fit
        state.micro_batch_size = (state.micro_batch_size + 1) // 2
        logger.warning("memory ran out: training goes on with micro-batches of %d", state.micro_batch_size)
        torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is torch's word for a device, or a limit of the process, that has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _batches(
    prompts: NDArray[np.int64], settings: TrainingConfig, iteration: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Prompts of each optimiser step."""
    for epoch in range(settings.epochs):
        visits = prompts[order(len(prompts), seed=seed, iteration=iteration, epoch=epoch)]
        yield from (visits[i : i + settings.batch_size] for i in range(0, len(prompts), settings.batch_size))


@dataclass(frozen=True)
class OffPolicyTrainer:
    """The gradient of an algorithm's loss over responses that are drawn and scored."""

    state: TrainingState
    data: Scored
    selection: Selection
    algorithm: Algorithm

    def gradient(self, chosen: NDArray[np.int64]) -> tuple[float, dict[str, float]]:
        """See `Trainer`; in micro-batches of similar length, of which each process has its share."""
        sums = [0.0, 0.0]
        mean_length = length_for(self.algorithm, self.data, self.selection, chosen)
        for micro, weight in shares(self.data, chosen, self.state.micro_batch_size):
            group = group_of(self.state.policy, self.data, self.selection, micro, mean_length=mean_length)
            loss = self.algorithm.loss(group).mean() * weight
            torch.autograd.backward(loss * sharding.world())  # gradients are averaged over the processes
            sums[0] += loss.item()
            sums[1] += (group.logp.detach() - group.logp_old).mean().item() * weight
        loss_sum, change_sum = sharding.summed(sums)
        return loss_sum, {"loss": loss_sum, "logp_change": change_sum}

    def updated(self) -> None:
        """See `Trainer`."""


def shares(data: Scored, chosen: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], float]]:
    """This process's micro-batches, of similar length, and their weights in the mean over all chosen prompts.

    Every process has as many: where one has no prompts left, it takes part with one that does not count.
    """
    prompts = chosen[np.argsort(-_group_lengths(data)[chosen], kind="stable")]
    share = prompts[sharding.rank() :: sharding.world()]
    for begin in range(0, -(-len(prompts) // sharding.world()), size):
        micro = share[begin : begin + size]
        yield (micro, len(micro) / len(prompts)) if len(micro) else (prompts[:1], 0.0)


def _group_lengths(data: Scored) -> NDArray[np.int64]:
    """Longest row of each prompt's group in tokens, (n,)."""
    rollout = data.rollout
    longest: NDArray[np.int64] = rollout.tokens.lengths.reshape(rollout.shape).max(1)
    return rollout.prompt_tokens.lengths + longest
