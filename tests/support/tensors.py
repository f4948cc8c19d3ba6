"""Numbers written out by hand, as tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def tensor(values: object) -> Tensor:
    """In fp64, so that sums by hand agree to the last digits."""
    return torch.tensor(values, dtype=torch.float64)
