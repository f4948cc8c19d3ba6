"""One iteration's update of the policy: the algorithm's loss over grouped mini-batches.

Optimiser state, learning-rate schedule and step count run on from iteration to iteration: resetting them loses
much of what later iterations gain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from components.algorithms import Algorithm, Group, leave_one_out
from components.config import TrainingConfig
from components.logprobs import Batch, collate, response_logprobs
from components.policy import Policy
from components.progress import Progress, silent
from components.records import Scored
from components.seeds import generator

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a weight


@dataclass(frozen=True)
class Selection:
    """The responses that an algorithm trains on, m of K per prompt."""

    indices: NDArray[np.int64]  # (n, m) into K
    win_rate: NDArray[np.float64]  # (n, m), leave-one-out over all K


def steps_per_iteration(settings: TrainingConfig, prompts: int) -> int:
    """Optimiser steps of one iteration."""
    return settings.epochs * math.ceil(prompts / settings.batch_size)


def learning_rate(settings: TrainingConfig, step: int, total: int) -> float:
    """Learning rate of optimiser step `step` (0-based) of the run's `total`: warm-up, then decay to zero."""
    warmup = round(settings.warmup_ratio * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    decay = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }
    return settings.learning_rate * decay[settings.schedule]


def make_optimizer(policy: Policy, settings: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over all weights that are not frozen; matrices decay, vectors (norms, biases) do not."""
    weights = [parameter for _, parameter in _trained(policy)]
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)


def save_optimizer(policy: Policy, optimizer: torch.optim.AdamW, path: Path) -> Path:
    """Writes the optimiser's moments as safetensors, keyed `<moment>.<parameter name>`."""
    moments: dict[str, Tensor] = {}
    for name, parameter in _trained(policy):
        # A weight that got no gradient yet has no moments; zeros are what AdamW would begin with.
        state = optimizer.state.get(parameter) or _zero_moments(parameter)
        moments |= {f"{moment}.{name}": state[moment] for moment in MOMENTS}
    save_file(moments, path)
    return path


def load_optimizer(policy: Policy, optimizer: torch.optim.AdamW, path: Path) -> None:
    """Restores what `save_optimizer` wrote. A moment that is missing raises KeyError."""
    moments = load_file(path)
    for name, parameter in _trained(policy):
        # The fused step wants its counter beside the weights too.
        optimizer.state[parameter] = {m: moments[f"{m}.{name}"].to(parameter.device) for m in MOMENTS}


def _trained(policy: Policy) -> list[tuple[str, Parameter]]:
    """Weights that are not frozen, by name; tied ones once."""
    return [(name, p) for name, p in policy.model.named_parameters() if p.requires_grad]


def _zero_moments(parameter: Parameter) -> dict[str, Tensor]:
    return {"step": torch.zeros(()), **{m: torch.zeros_like(parameter.detach()) for m in MOMENTS[1:]}}


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
    prompts = len(win_rate)
    per_iteration = steps_per_iteration(settings, prompts)
    first, total = (iteration - 1) * per_iteration, iterations * per_iteration
    sums: dict[str, float] = {}
    # Dropout stays off: with it, the ratio to pi_t would not start at 1.
    for done, chosen in enumerate(_batches(prompts, settings, iteration, seed)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, first + done, total)
        figures = _step(policy, data, selection, chosen, algorithm, settings, optimizer)
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
        progress(done + 1, per_iteration, **figures)
    return {key: value / per_iteration for key, value in sums.items()}


def _batches(prompts: int, settings: TrainingConfig, iteration: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Prompts of each optimiser step."""
    for epoch in range(settings.epochs):
        visits = order(prompts, seed=seed, iteration=iteration, epoch=epoch)
        yield from (visits[i : i + settings.batch_size] for i in range(0, prompts, settings.batch_size))


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
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), settings.max_grad_norm).item()
    if not (math.isfinite(loss_sum) and math.isfinite(norm)):
        raise FloatingPointError(
            f"loss {loss_sum} with gradient norm {norm}: training diverged. "
            "Lower training.learning_rate or algorithm.eta, or use policy.precision: fp32."
        )
    optimizer.step()
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
    prompts = [rollout.prompt_tokens[i] for i in chosen for _ in range(picked.shape[1])]
    responses = [rollout.tokens[i * k + j] for i, row in zip(chosen, picked, strict=True) for j in row]
    return collate(prompts, responses, policy.pad_id, policy.device)
