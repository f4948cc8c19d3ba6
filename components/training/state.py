"""All that changes while an iteration trains: it fits in a file, from which another process continues.

Everything else, such as the order of prompts, the learning rate and the seeds of responses, follows from the inputs
and from how many optimiser steps are done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from components.policy.model import Policy
from components.training.optimizer import moments, restore_moments, trainable_parameters
from components.training.sharding import rank, spread_like, whole

PROGRESS = "progress"  # key of the file's metadata under which the numbers lie, as JSON


def anchor_weights(policy: Policy, anchor: Policy) -> list[tuple[str, Parameter]]:
    """What an anchor has of its own, in the order of the policy's trained weights; it shares the frozen ones."""
    parameters = dict(anchor.model.named_parameters())
    return [(name, parameters[name]) for name, _ in trainable_parameters(policy)]


@dataclass
class TrainingState:
    """Weights, optimiser, anchor and counts of an iteration's training."""

    policy: Policy
    optimizer: Optimizer
    micro_batch_size: int  # rows or prompts that are read at once; smaller after memory ran out
    anchor: Policy | None = None  # of an on-policy algorithm
    done: int = 0  # optimiser steps
    sums: dict[str, float] = field(default_factory=dict)  # of each step's figures
    drawn: dict[str, int] = field(default_factory=dict)  # what training itself generated
    measured: list[list[list[float]]] = field(default_factory=list)  # of each pass, as `monitor.Monitor.measure`

    def save(self, path: Path, **about: str) -> None:
        """Writes a safetensors file, the first of several processes; `about` goes into its metadata."""
        numbers = {name: getattr(self, name) for name in ("micro_batch_size", "done", "sums", "drawn", "measured")}
        tensors = self._tensors()
        if rank() == 0:
            save_file(tensors, path, {PROGRESS: json.dumps(numbers), **about})

    def restore(self, path: Path) -> dict[str, str]:
        """Takes over what `save` wrote, in place; gives the file's metadata. A missing tensor raises KeyError."""
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about: dict[str, str] = file.metadata()
        with torch.no_grad():
            for name, tensor in self._weights().items():
                tensor.copy_(spread_like(found[name], tensor))
        restore_moments(self.policy, self.optimizer, found)
        for name, value in json.loads(about[PROGRESS]).items():
            setattr(self, name, value)
        return about

    def _weights(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {
            f"policy.{name}": parameter for name, parameter in trainable_parameters(self.policy)
        }
        if self.anchor is not None:
            found |= {f"anchor.{name}": parameter for name, parameter in anchor_weights(self.policy, self.anchor)}
        return found

    def _tensors(self) -> dict[str, Tensor]:
        weights = {name: whole(weight.detach()).contiguous() for name, weight in self._weights().items()}
        return {**weights, **moments(self.policy, self.optimizer)}
