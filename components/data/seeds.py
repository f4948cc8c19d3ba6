"""Random numbers that depend only on what they are for, never on which process draws them or in which order."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def derive_seed(*parts: str | int) -> int:
    """64-bit seed of a purpose, e.g. `derive_seed(run_seed, "generate", iteration, prompt_id, k)`."""
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def generator(*parts: str | int) -> np.random.Generator:
    """Counter-based generator seeded by `derive_seed(*parts)`."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))
