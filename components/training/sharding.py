"""A policy's weights spread over processes, each with a share of every tensor: FSDP2 (Zhao et al., arXiv 2304.11277).

Layers are gathered one at a time for forward and backward. In one process, these functions change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from components.policy.model import Policy
from components.training.gradient_checkpointing import layers

if TYPE_CHECKING:
    from components.policy.batches import Batch


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This one's number among them; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard(policy: Policy) -> Policy:
    """The policy, its model changed in place: each process keeps its share. Raises PolicyError as `layers` does.

    Every forward pass must then go through `Policy.sharded`, the module that gathers what no layer holds.
    """
    for layer in layers(policy.model):
        fully_shard(layer)
    root = _TokenLogProbs(policy)
    fully_shard(root)
    return replace(policy, sharded=root)


class _TokenLogProbs(nn.Module):
    """Embeddings, layers and head at once, so that the head's weights are there when its logits are made."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model = policy.model
        self._policy = policy

    def forward(self, batch: Batch) -> Tensor:
        from components.policy.logprobs import flat_logprobs

        return flat_logprobs(self._policy, batch)


def reshard(policy: Policy) -> None:
    """Gives up the weights that a forward pass without a backward pass left gathered.

    The next pass would read them again, whatever the optimiser has done to the shares meanwhile.
    """
    root: Any = policy.sharded  # an FSDPModule since `shard`
    if root is not None:
        root.reshard()


def gathered(policy: Policy, load: Callable[[], Policy]) -> Policy | None:
    """The policy with all its weights, in the first process; `load` gives one like it. None in the others."""
    if policy.sharded is None:
        return policy
    copy = load() if rank() == 0 else None
    targets = dict(copy.model.named_parameters()) if copy else {}
    for name, parameter in policy.model.named_parameters():
        weight = whole(parameter.detach())
        if copy:
            targets[name].data.copy_(weight)
    return copy


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shares; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of `like` and spread as that is."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def summed(values: list[float]) -> list[float]:
    """Sums over the processes."""
    if world() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total)
    return total.tolist()


def agreed(value: bool) -> bool:
    """What the first process says, for decisions that all must take alike."""
    return bool(summed([float(value and rank() == 0)])[0])
