"""Training on responses that were drawn and scored before: an algorithm's loss over grouped mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.algorithms import Algorithm
from components.data.records import Scored
from components.runtime.progress import Progress, silent
from components.training import sharding
from components.training.groups import Selection, group_of, length_for, selected
from components.training.loop import Part, Schedule, nothing, run_steps
from components.training.state import TrainingState


def train(
    state: TrainingState,
    data: Scored,
    algorithm: Algorithm,
    schedule: Schedule,
    *,
    progress: Progress = silent,
    saved: Callable[[TrainingState], None] = lambda _: None,
) -> dict[str, float]:
    """Trains pi_theta from pi_t in place.

    Args:
        state: pi_t, its model becoming pi_{t+1}, and the optimiser, its state restored after the first iteration.
        data: responses of pi_t with log-probs and preferences.
        algorithm: gives the loss.
        schedule: batch sizes, order and learning rates.
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
        schedule,
        np.flatnonzero(algorithm.informative(selection.win_rate)),
        of=len(selection.win_rate),
        progress=progress,
        saved=saved,
    )


@dataclass(frozen=True)
class OffPolicyTrainer:
    """The gradient of an algorithm's loss over responses that are drawn and scored."""

    state: TrainingState
    data: Scored
    selection: Selection
    algorithm: Algorithm

    def gradient(self, chosen: NDArray[np.int64], part: Part = nothing) -> tuple[float, dict[str, float]]:
        """See `loop.Trainer`; in micro-batches of similar length, of which each process has its share."""
        sums, seen = [0.0, 0.0], 0.0
        mean_length = length_for(self.algorithm, self.data, self.selection, chosen)
        for micro, weight in shares(self.data, chosen, self.state.micro_batch_size):
            group = group_of(self.state.policy, self.data, self.selection, micro, mean_length=mean_length)
            loss = self.algorithm.loss(group).mean() * weight
            torch.autograd.backward(loss * sharding.world())  # gradients are averaged over the processes
            sums[0] += loss.item()
            sums[1] += (group.logp.detach() - group.logp_old).mean().item() * weight
            seen += weight * sharding.world()
            part(of_step=seen)
        loss_sum, change_sum = sharding.summed(sums)
        return loss_sum, {"loss": loss_sum, "logp_change": change_sum}

    def updated(self) -> None:
        """See `loop.Trainer`."""


def shares(data: Scored, chosen: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], float]]:
    """This process's micro-batches, of similar length, and their weights in the mean over all chosen prompts.

    Every process has as many: where one has no prompts left, it takes part with one that does not count.
    """
    prompts = chosen[np.argsort(-_group_lengths(data, chosen), kind="stable")]
    share = prompts[sharding.rank() :: sharding.world()]
    for begin in range(0, -(-len(prompts) // sharding.world()), size):
        micro = share[begin : begin + size]
        yield (micro, len(micro) / len(prompts)) if len(micro) else (prompts[:1], 0.0)


def _group_lengths(data: Scored, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Longest row of each chosen prompt's group in tokens; of all prompts, each step would take as long as an epoch."""
    rollout, k = data.rollout, data.rollout.shape[1]
    longest: NDArray[np.int64] = rollout.tokens.lengths_of(chosen[:, None] * k + np.arange(k)).max(1)
    return rollout.prompt_tokens.lengths_of(chosen) + longest
