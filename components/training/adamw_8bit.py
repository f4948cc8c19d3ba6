"""AdamW with moments in 8 bits, block by block (Dettmers et al., arXiv 2110.02861), as bitsandbytes computes it.

Weights of fewer than 4096 numbers keep moments in 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitsandbytes import optim
from torch import Tensor


class AdamW8bit(optim.AdamW8bit):
    """bitsandbytes' optimiser, with moments in 32 bits for the weights `in_full`.

    Embeddings should be among them: a block holds rows of frequent and of rare tokens, and has one scale.
    """

    def __init__(self, groups: list[dict[str, Any]], *, in_full: Sequence[Tensor], **options: Any) -> None:
        self._in_full = {id(parameter) for parameter in in_full}
        super().__init__(groups, **options)

    def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
        """Settings of a weight."""
        config: dict[str, Any] = super().get_config(gindex, pindex, group)
        return {**config, "optim_bits": 32} if id(group["params"][pindex]) in self._in_full else config
