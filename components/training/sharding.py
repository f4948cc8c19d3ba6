"""A policy's weights spread over processes, each with a share of every tensor: FSDP2 (Zhao et al., arXiv 2304.11277).

Layers are gathered one at a time for forward and backward. In one process, these functions change nothing.

Beside an adapter the frozen base is shared in the same way, but within each node: every node has all of it, and what
nodes exchange is the adapter's gradient alone. The frozen weights of one GPU's share would pass between machines in
every pass, and are a hundred times as many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from components.config.sections import TrainingConfig
from components.policy.model import Policy
from components.training.gradient_checkpointing import layers
from components.training.shares import shares

if TYPE_CHECKING:
    from components.policy.batches import Batch


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This one's number among them; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def first_of_machine() -> bool:
    """Whether this is the process that does what is done once on each machine that trains."""
    return not dist.is_initialized() or int(os.environ.get("LOCAL_RANK", "0")) == 0


def shard(policy: Policy, settings: TrainingConfig) -> Policy:
    """The policy, its model changed in place: each process keeps its share. Raises PolicyError as `layers` does.

    Every forward pass must then go through `Policy.sharded`, the module that gathers what no layer holds.
    """
    mesh = _nodes_with_copies(settings) if shares(settings) < settings.world else None
    for layer in layers(policy.model):
        fully_shard(layer, mesh=mesh)
    root = _TokenLogProbs(policy)
    fully_shard(root, mesh=mesh)
    return replace(policy, sharded=root)


def _nodes_with_copies(settings: TrainingConfig) -> DeviceMesh:
    """All processes, a row for each node: weights are equal down a column and shared along a row."""
    grid = torch.arange(world()).reshape(settings.nodes, settings.processes)
    timeout = timedelta(minutes=settings.nodes_wait_minutes)
    split: Any = dist.new_subgroups_by_enumeration  # torch has no types for it
    (across, _), (within, _) = split(grid.T.tolist(), timeout=timeout), split(grid.tolist(), timeout=timeout)
    return DeviceMesh.from_group([across, within], _device(), mesh=grid, mesh_dim_names=("nodes", "processes"))


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
    """The policy with all that was trained, in the first process; `load` gives one like it. None in the others."""
    if policy.sharded is None:
        return policy
    copy = load() if rank() == 0 else None
    targets = dict(copy.model.named_parameters()) if copy else {}
    for name, parameter in policy.model.named_parameters():
        if not parameter.requires_grad:
            continue
        weight = whole(parameter.detach())
        if copy:
            targets[name].data.copy_(weight)
    return copy


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shares; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_share(value: Any) -> Any:
    """This process's share of a tensor that is spread, sharing its memory; anything else as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of `like` and spread as that is."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def summed(values: list[float]) -> list[float]:
    """Sums over the processes."""
    if world() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(total)
    return total.tolist()


def agreed(value: bool) -> bool:
    """What the first process says, for decisions that all must take alike."""
    return bool(summed([float(value and rank() == 0)])[0])


def in_any(value: bool) -> bool:
    """Whether this is so in one of the processes."""
    return bool(summed([float(value)])[0])


def as_the_first(text: str) -> str:
    """The first process's text, in all of them."""
    if world() == 1:
        return text
    content = text.encode()
    size = int(summed([float(len(content) * (rank() == 0))])[0])
    letters = torch.tensor([*content] if rank() == 0 else [0] * size, dtype=torch.uint8, device=_device())
    dist.broadcast(letters, 0)
    return bytes(letters.tolist()).decode()


def _device() -> str:
    """Where tensors lie that processes exchange."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
