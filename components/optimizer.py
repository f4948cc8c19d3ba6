"""The optimiser of a run: AdamW, its learning-rate schedule, and its state as a safetensors file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from components.policy import Policy
from components.sections import TrainingConfig

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a weight


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


def moments(policy: Policy, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimiser's state, keyed `<moment>.<parameter name>`."""
    found: dict[str, Tensor] = {}
    for name, parameter in _trained(policy):
        # A weight that got no gradient yet has no moments; zeros are what AdamW would begin with.
        state = optimizer.state.get(parameter) or _zero_moments(parameter)
        found |= {f"{moment}.{name}": state[moment] for moment in MOMENTS}
    return found


def restore_moments(policy: Policy, optimizer: torch.optim.AdamW, found: Mapping[str, Tensor]) -> None:
    """Gives the optimiser what `moments` gave. A moment that is missing raises KeyError."""
    for name, parameter in _trained(policy):
        # The fused step wants its counter beside the weights too.
        optimizer.state[parameter] = {m: found[f"{m}.{name}"].to(parameter.device) for m in MOMENTS}


def save_optimizer(policy: Policy, optimizer: torch.optim.AdamW, path: Path) -> Path:
    """Writes the optimiser's moments as safetensors."""
    save_file(moments(policy, optimizer), path)
    return path


def load_optimizer(policy: Policy, optimizer: torch.optim.AdamW, path: Path) -> None:
    """Restores what `save_optimizer` wrote. A moment that is missing raises KeyError."""
    restore_moments(policy, optimizer, load_file(path))


def _trained(policy: Policy) -> list[tuple[str, Parameter]]:
    """Weights that are not frozen, by name; tied ones once."""
    return [(name, p) for name, p in policy.model.named_parameters() if p.requires_grad]


def _zero_moments(parameter: Parameter) -> dict[str, Tensor]:
    return {"step": torch.zeros(()), **{m: torch.zeros_like(parameter.detach()) for m in MOMENTS[1:]}}


def clip_and_step(policy: Policy, optimizer: torch.optim.AdamW, loss: float, max_grad_norm: float) -> float:
    """Clips the gradient and steps; returns the gradient's norm before clipping.

    Raises FloatingPointError for a loss or gradient that is not finite, before it reaches the weights.
    """
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), max_grad_norm).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"loss {loss} with gradient norm {norm}: training diverged. "
            "Lower training.learning_rate or algorithm.eta, or use policy.precision: fp32."
        )
    optimizer.step()
    return norm
