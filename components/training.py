"""One iteration's update of the policy: the algorithm's loss over grouped mini-batches.

Optimiser state, learning-rate schedule and step count run on from iteration to iteration: resetting them loses
much of what later iterations gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.algorithms import Algorithm, Group, leave_one_out
from components.batches import Batch, collate
from components.logprobs import response_logprobs
from components.optimizer import clip_and_step, learning_rate
from components.policy import Policy
from components.progress import Progress, silent
from components.records import Scored
from components.sections import TrainingConfig
from components.seeds import generator

Step = Callable[[NDArray[np.int64]], dict[str, float]]  # indices of its prompts to figures of an optimiser step


@dataclass(frozen=True)
class Selection:
    """The responses that an algorithm trains on, m of K per prompt."""

    indices: NDArray[np.int64]  # (n, m) into K
    win_rate: NDArray[np.float64]  # (n, m), leave-one-out over all K


def steps_per_iteration(settings: TrainingConfig, prompts: int) -> int:
    """Optimiser steps of one iteration."""
    return settings.epochs * math.ceil(prompts / settings.batch_size)


def order(prompts: int, *, seed: int, iteration: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its prompts; a function of its arguments only."""
    return generator(seed, "order", iteration, epoch).permutation(prompts)


def train(
    policy: Policy,
    data: Scored,
    algorithm: Algorithm,
    settings: TrainingConfig,
    optimizer: torch.optim.AdamW,
    *,
    iteration: int,
    iterations: int,
    seed: int,
    progress: Progress = silent,
) -> dict[str, float]:
    """Trains pi_theta from pi_t in place.

    Args:
        policy: pi_t; its model becomes pi_{t+1}.
        data: responses of pi_t with log-probs and preferences.
        algorithm: gives the loss.
        settings: batch sizes and schedule.
        optimizer: of `make_optimizer`, its state restored after the first iteration.
        iteration: 1-based.
        iterations: T, for the schedule over the whole run.
        seed: of the run; fixes the order of prompts.
        progress: called after each optimiser step with loss and gradient norm.

    Returns:
        Means over the iteration: loss, grad_norm, logp_change (nats per response).

    Raises:
        FloatingPointError: a loss or gradient that is not finite, before it reaches the weights.
    """
    win_rate = leave_one_out(data.preference)
    indices = algorithm.select(win_rate)
    selection = Selection(indices, np.take_along_axis(win_rate, indices, 1))

    def step(chosen: NDArray[np.int64]) -> dict[str, float]:
        return _step(policy, data, selection, chosen, algorithm, settings, optimizer)

    return run_steps(
        step,
        optimizer,
        settings,
        np.flatnonzero(algorithm.informative(selection.win_rate)),
        steps=steps_per_iteration(settings, len(win_rate)),
        iteration=iteration,
        iterations=iterations,
        seed=seed,
        progress=progress,
    )


def run_steps(
    step: Step,
    optimizer: torch.optim.AdamW,
    settings: TrainingConfig,
    prompts: NDArray[np.int64],
    *,
    steps: int,
    iteration: int,
    iterations: int,
    seed: int,
    progress: Progress = silent,
) -> dict[str, float]:
    """Visits prompts batch by batch at the run's learning rate; means of `step`'s figures, none without prompts.

    `prompts` are the indices of those to visit; `steps` is what visiting all of the iteration's prompts would take. The
    schedule counts those, so that every iteration has its share of it, however few prompts are left out.
    """
    total, batches = iterations * steps, steps_per_iteration(settings, len(prompts))
    sums: dict[str, float] = {}
    # Dropout stays off: with it, the ratio to pi_t would not start at 1.
    for done, chosen in enumerate(_batches(prompts, settings, iteration, seed)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, (iteration - 1) * steps + done * steps // batches, total)
        figures = step(chosen)
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
        progress(done + 1, batches, **figures)
    return {key: value / batches for key, value in sums.items()}


def _batches(
    prompts: NDArray[np.int64], settings: TrainingConfig, iteration: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Prompts of each optimiser step."""
    for epoch in range(settings.epochs):
        visits = prompts[order(len(prompts), seed=seed, iteration=iteration, epoch=epoch)]
        yield from (visits[i : i + settings.batch_size] for i in range(0, len(prompts), settings.batch_size))


def _step(
    policy: Policy,
    data: Scored,
    selection: Selection,
    chosen: NDArray[np.int64],
    algorithm: Algorithm,
    settings: TrainingConfig,
    optimizer: torch.optim.AdamW,
) -> dict[str, float]:
    """One optimiser step over the groups of the chosen prompts, in micro-batches of similar length."""
    optimizer.zero_grad(set_to_none=True)
    lengths = _group_lengths(data)[chosen]
    by_size = chosen[np.argsort(-lengths, kind="stable")]
    loss_sum, change_sum = 0.0, 0.0
    for begin in range(0, len(by_size), settings.micro_batch_size):
        micro = by_size[begin : begin + settings.micro_batch_size]
        group = group_of(policy, data, selection, micro)
        loss = algorithm.loss(group).mean() * (len(micro) / len(chosen))
        torch.autograd.backward(loss)
        loss_sum += loss.item()
        change_sum += (group.logp.detach() - group.logp_old).mean().item() * len(micro) / len(chosen)
    norm = clip_and_step(policy, optimizer, loss_sum, settings.max_grad_norm)
    return {"loss": loss_sum, "grad_norm": norm, "logp_change": change_sum}


def _group_lengths(data: Scored) -> NDArray[np.int64]:
    """Longest row of each prompt's group in tokens, (n,)."""
    rollout = data.rollout
    longest: NDArray[np.int64] = rollout.tokens.lengths.reshape(rollout.shape).max(1)
    return rollout.prompt_tokens.lengths + longest


def group_of(policy: Policy, data: Scored, selection: Selection, chosen: NDArray[np.int64]) -> Group:
    """The tensors of an algorithm's loss for some prompts, one forward pass over their selected responses."""
    picked = selection.indices[chosen]
    logp = response_logprobs(policy, _batch(policy, data, chosen, picked)).reshape(picked.shape)

    def as_tensor(a: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(a, dtype=logp.dtype, device=logp.device)

    old, ref = (np.take_along_axis(a[chosen], picked, 1) for a in (data.logp_old, data.logp_ref))
    return Group(logp, as_tensor(old), as_tensor(ref), as_tensor(selection.win_rate[chosen]))


def _batch(policy: Policy, data: Scored, chosen: NDArray[np.int64], picked: NDArray[np.int64]) -> Batch:
    rollout, k = data.rollout, data.rollout.shape[1]
    prompts = [rollout.prompt_tokens[i] for i in chosen]
    responses = [rollout.tokens[i * k + j] for i, row in zip(chosen, picked, strict=True) for j in row]
    return collate(prompts, responses, policy.pad_id, policy.device)
