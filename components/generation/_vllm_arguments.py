"""What vLLM is started with, from the settings of its engine."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from components.config.schema import Section

LENGTH_STEP = 256  # vLLM compiles anew for each model length; rounded ones are found in its cache


class VllmSettings(Section):
    """How vLLM runs a model."""

    batch_size: PositiveInt = Field(256, description="responses sampled at once")
    tensor_parallel: PositiveInt = Field(1, description="GPUs that share the model")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that vLLM takes")
    kv_cache_mb: PositiveInt | None = Field(
        None, description="memory of keys and values; absent: what gpu_memory_utilization leaves, on a CPU 1024"
    )
    prefix_caching: bool = Field(True, description="read a prompt once for its K responses")
    enforce_eager: bool = Field(False, description="neither compile nor record CUDA graphs: starts sooner, runs slower")


def arguments(engine: VllmSettings, *, length: int, limit: int | None, precision: str) -> dict[str, Any]:
    """vLLM's engine arguments for sequences of `length` tokens, of a model that has `limit` positions if any number."""
    from components.policy.model import best_device

    rounded = -(-length // LENGTH_STEP) * LENGTH_STEP
    found: dict[str, Any] = {
        "model": "model",  # in the worker's folder: a path that changes would miss what is compiled already
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # the published defaults of sampling have no say
        "dtype": {"fp32": "float32", "bf16": "bfloat16"}[precision],
        "max_model_len": length if limit is None else max(length, min(rounded, limit)),
        "max_num_seqs": engine.batch_size,
        "tensor_parallel_size": engine.tensor_parallel,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if engine.kv_cache_mb is None else engine.kv_cache_mb * 2**20,
        "enable_prefix_caching": engine.prefix_caching,
        "enforce_eager": engine.enforce_eager,
    }
    return found | (_for_cpu(found) if best_device().type == "cpu" else {})


def _for_cpu(arguments: dict[str, Any]) -> dict[str, Any]:
    """What differs on a CPU.

    The memory that vLLM would take a share of is all there is, other tasks' included. And it winds back a seeded
    generator when it reads a prompt in several parts, which a CPU's generator does not allow.
    """
    return {
        "kv_cache_memory_bytes": arguments["kv_cache_memory_bytes"] or 2**30,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(4096, arguments["max_model_len"], arguments["max_num_seqs"]),
    }
