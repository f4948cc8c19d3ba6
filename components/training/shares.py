"""How processes share weights, and which weights have moments of 8 bits, in blocks that no share may cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from components.config.errors import ConfigError
from components.config.sections import TrainingConfig

BLOCK = 256  # numbers, of bitsandbytes
LEAST = 4096  # numbers of a weight with such moments
TABLES = ("qmap1", "qmap2")  # bitsandbytes' values of the 8-bit codes, constant and shared by all weights


def shares(settings: TrainingConfig) -> int:
    """Over how many processes each weight is spread: all, or beside an adapter those of each node."""
    return settings.world if settings.lora is None else settings.processes


def in_blocks(shape: Sequence[int]) -> bool:
    """Whether a weight is a large matrix: the moments of others stay in 32 bits."""
    return len(shape) > 1 and math.prod(shape) >= LEAST


def require_whole_blocks(weights: Iterable[tuple[str, Sequence[int]]], processes: int) -> None:
    """Raises ConfigError for the first weight whose rows, shared among several processes, would cut a block.

    Args:
        weights: names and shapes of those that are trained, without embeddings.
        processes: how many share each weight.
    """
    if processes == 1:
        return
    for name, shape in weights:
        if in_blocks(shape) and (shape[0] % processes or math.prod(shape) // processes % BLOCK):
            raise ConfigError(
                f"training.optimizer: adamw_8bit has moments in blocks of {BLOCK}, and {name} of shape {list(shape)} "
                f"cannot be shared by {processes} processes without cutting one. Use adamw, or another number of "
                "training.processes."
            )
