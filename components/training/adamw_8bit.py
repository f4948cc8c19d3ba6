"""AdamW with moments in 8 bits, block by block (Dettmers et al., arXiv 2110.02861), as bitsandbytes computes it.

Vectors and weights of fewer than 4096 numbers keep moments in 32 bits. A weight that is spread over processes must be
cut between two blocks: then each process has the blocks that one alone would have, and the same rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes import optim
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from components.training.sharding import own_share
from components.training.shares import TABLES, in_blocks


class AdamW8bit(optim.AdamW8bit):
    """bitsandbytes' optimiser, with moments in 32 bits for the weights `in_full`.

    Embeddings should be among them: a block holds rows of frequent and of rare tokens, and has one scale.
    """

    def __init__(self, groups: list[dict[str, Any]], *, in_full: Sequence[Tensor], **options: Any) -> None:
        self._in_full = {id(parameter) for parameter in in_full}
        super().__init__(groups, min_8bit_size=0, **options)

    def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
        """Settings of a weight; how large it is as a whole says how many bits its moments have."""
        config: dict[str, Any] = super().get_config(gindex, pindex, group)
        parameter = group["params"][pindex]
        eight = in_blocks(parameter.shape) and id(parameter) not in self._in_full
        return {**config, "optim_bits": 8 if eight else 32}

    @torch.no_grad()
    def init_state(self, group: dict[str, Any], p: Tensor, gindex: int, pindex: int) -> None:
        """The moments of a weight, spread as it is."""
        if not isinstance(p, DTensor):
            super().init_state(group, p, gindex, pindex)
            return
        share = Parameter(own_share(p))
        super().init_state(group, share, gindex, pindex)
        self.state[p] = {name: _spread(name, value, p) for name, value in self.state.pop(share).items()}

    @torch.no_grad()
    def update_step(self, group: dict[str, Any], p: Tensor, gindex: int, pindex: int) -> None:
        """The step of a weight; its kernels read plain memory, so each process hands its share over."""
        if not isinstance(p, DTensor):
            super().update_step(group, p, gindex, pindex)
            return
        assert p.grad is not None
        state, share = self.state[p], Parameter(own_share(p))
        if not share.numel():  # fewer rows than processes
            state["step"] += 1
            return
        share.grad = own_share(p.grad)
        self.state[share] = {name: own_share(value) for name, value in state.items()}
        super().update_step(group, share, gindex, pindex)
        state["step"] = self.state.pop(share)["step"]


def _spread(name: str, value: Any, like: DTensor) -> Any:
    """A moment of a share, as one of the whole weight: of its shape, or with a scale for each block."""
    if not isinstance(value, Tensor) or name in TABLES:
        return value
    shape, stride = (like.shape, like.stride()) if name.startswith("state") else (None, None)
    return DTensor.from_local(value, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride)
