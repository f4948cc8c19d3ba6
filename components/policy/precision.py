"""In which precision a run computes."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from components.policy.model import Policy, automatic_precision


def pick_precision(policy: Policy, setting: str) -> str:
    """Resolves policy.precision to "fp32" or "bf16". `start` does it once, so that all steps agree."""
    if setting == "auto":
        return automatic_precision(policy.device)
    if setting == "probe":
        return _faster_precision(policy)
    return setting


def _faster_precision(policy: Policy) -> str:
    """Times a forward and backward pass in both precisions.

    Which one wins depends on the processor (bf16 pays on CPUs with AMX and costs without), not on a flag.
    """
    length = min(128, getattr(policy.model.config.get_text_config(), "max_position_embeddings", 128))
    ids = torch.arange(16 * length, device=policy.device).remainder(policy.tokenizer.vocab_size).reshape(16, length)
    seconds = {}
    for precision in ("fp32", "bf16"):
        for _ in range(3):  # the last one counts, the first ones warm up
            begin = time.perf_counter()
            with replace(policy, precision=precision).autocast():
                hidden = policy.body(input_ids=ids).last_hidden_state
            hidden.float().square().mean().backward()
            policy.model.zero_grad(set_to_none=True)
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[precision] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)
