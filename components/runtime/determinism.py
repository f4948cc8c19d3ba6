"""Arithmetic that gives the same bits from the same inputs, whatever ran before and beside it."""

from __future__ import annotations

import os


def require(*, gpu: bool) -> None:
    """Has torch choose algorithms that repeat themselves, and refuse those that cannot; best before a GPU is used.

    On a GPU, cuBLAS needs a workspace of its own (https://docs.nvidia.com/cuda/cublas, "Results reproducibility"), and
    vLLM kernels whose sums don't depend on what else is in the batch.
    """
    import torch

    if gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    # The gradient of an index with repeats adds up in whichever order the threads come, unless told otherwise.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set through its class
