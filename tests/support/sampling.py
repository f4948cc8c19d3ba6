"""Responses drawn by the transformers engine, with seeds of their own."""

from __future__ import annotations

import numpy as np

from components.data.seeds import derive_seed
from components.generation import Sampling
from components.generation.transformers import TransformersEngine


def seeds_of(prompts, k, *, iteration=1):
    """(n, K), from each prompt's tokens, so that a prompt has the same seeds in every batch."""
    rows = [[derive_seed(0, iteration, str(list(p)), j) for j in range(k)] for p in prompts]
    return np.array(rows, dtype=np.uint64)


def run(policy, prompts, *, k=4, limit=12, batch_size=512, iteration=1, temperature=1.0, top_p=1.0, progress=None):
    """Responses as nested lists, (n, K), and `finished`."""
    samples = TransformersEngine(batch_size=batch_size).sample(
        policy,
        prompts,
        seeds_of(prompts, k, iteration=iteration),
        Sampling(limit, temperature, top_p),
        **({} if progress is None else {"progress": progress}),
    )
    rows = [samples.tokens[i].tolist() for i in range(len(samples.tokens))]
    return [rows[i : i + k] for i in range(0, len(rows), k)], samples.finished
