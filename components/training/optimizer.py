"""The optimiser of a run, its learning-rate schedule, and its state as a safetensors file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Embedding, Parameter
from torch.optim import AdamW, Optimizer, RMSprop

from components.config.sections import TrainingConfig
from components.policy.model import Policy
from components.training.sharding import rank, spread_like, whole
from components.training.shares import TABLES

MOMENTS = {AdamW: ("exp_avg", "exp_avg_sq"), RMSprop: ("square_avg",)}  # torch's state of a weight, beside its step
DIVERGED = "training diverged. Lower training.learning_rate or algorithm.eta, or use policy.precision: fp32."


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


def make_optimizer(policy: Policy, settings: TrainingConfig) -> Optimizer:
    """The configured optimiser over all weights that are not frozen; matrices decay, vectors (norms, biases) do not.

    RMSprop is torch's with its defaults, as in SPPO's recipe; its decay is part of the gradient, AdamW's is decoupled.
    """
    weights = [parameter for _, parameter in trainable_parameters(policy)]
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
    if settings.optimizer == "rmsprop":
        return RMSprop(groups, lr=settings.learning_rate)
    from components.training.adamw_8bit import AdamW8bit

    embeddings = [module.weight for module in policy.model.modules() if isinstance(module, Embedding)]
    return AdamW8bit(groups, in_full=embeddings, lr=settings.learning_rate, betas=betas)


def moments(policy: Policy, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, keyed `<moment>.<parameter name>`."""
    return {
        f"{moment}.{name}": whole(torch.as_tensor(value))
        for name, state in _states(policy, optimizer)
        for moment, value in state.items()
        if moment not in TABLES
    }


def restore_moments(policy: Policy, optimizer: Optimizer, found: Mapping[str, Tensor]) -> None:
    """Gives the optimiser what `moments` gave. A moment that is missing raises KeyError."""
    for name, state in _states(policy, optimizer):
        for moment in sorted(state.keys() - set(TABLES)):  # in the same order in all processes
            value = found[f"{moment}.{name}"]
            state[moment] = spread_like(value, state[moment]) if isinstance(state[moment], Tensor) else int(value)


def save_optimizer(policy: Policy, optimizer: Optimizer, path: Path) -> Path:
    """Writes the optimiser's moments as safetensors; the first of several processes does."""
    found = moments(policy, optimizer)
    if rank() == 0:
        save_file(found, path)
    return path


def load_optimizer(policy: Policy, optimizer: Optimizer, path: Path) -> None:
    """Restores what `save_optimizer` wrote. A moment that is missing raises KeyError."""
    restore_moments(policy, optimizer, load_file(path))


def trainable_parameters(policy: Policy) -> list[tuple[str, Parameter]]:
    """Weights that are not frozen, by name; tied ones once."""
    return [(name, p) for name, p in policy.model.named_parameters() if p.requires_grad]


def _states(policy: Policy, optimizer: Optimizer) -> Iterator[tuple[str, dict[str, Any]]]:
    """The optimiser's state of each weight; one that got no gradient yet is given what the optimiser begins with."""
    names = {parameter: name for name, parameter in trainable_parameters(policy)}
    for g, group in enumerate(optimizer.param_groups):
        for i, parameter in enumerate(group["params"]):
            if not optimizer.state[parameter]:
                _begin(optimizer, group, parameter, (g, i))
            yield names[parameter], optimizer.state[parameter]


def _begin(optimizer: Any, group: dict[str, Any], parameter: Parameter, place: tuple[int, int]) -> None:
    if moments := MOMENTS.get(type(optimizer)):
        zeros = {moment: torch.zeros_like(parameter.detach()) for moment in moments}
        # The fused step wants its counter beside the weights too.
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **zeros}
    else:
        optimizer.init_state(group, parameter, *place)


def clip_and_step(policy: Policy, optimizer: Optimizer, loss: float, max_grad_norm: float) -> float:
    """Clips the gradient and steps; returns the gradient's norm before clipping.

    Raises FloatingPointError for a loss or gradient that is not finite, before it reaches the weights.
    """
    norm = whole(torch.nn.utils.clip_grad_norm_(policy.model.parameters(), max_grad_norm)).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(f"loss {loss} with gradient norm {norm}: {DIVERGED}")
    optimizer.step()
    return norm


def require_finite(policy: Policy) -> None:
    """Raises FloatingPointError for a weight that is not finite: after the last step no loss would tell."""
    for name, weight in policy.model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise FloatingPointError(f"{name} is not finite after the last step: {DIVERGED}")
