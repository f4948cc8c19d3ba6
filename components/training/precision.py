"""In which precision a run computes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from components.data.records import Prompt, TokenIds
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.policy import attention
from components.policy.batches import collate
from components.policy.logprobs import response_logprobs
from components.policy.model import Policy, automatic_precision
from components.run_config import RunConfig

# Of the trial: enough to tell a precision that is faster from one that is slower, in seconds on a CPU.
PROMPTS, RESPONSES, TOKENS, ROUNDS = 4, 8, 32, 3


def pick_precision(policy: Policy, config: RunConfig, prompts: Sequence[Prompt]) -> str:
    """Resolves `policy.precision` to "fp32" or "bf16". `start` does it once, so that all steps agree.

    For "probe" a little of an iteration is done in both: responses to a few of the prompts drawn, if the policy's own
    forward is to draw them, then a pass over them and its gradients as often as training makes one. Which precision
    wins depends on processor and model: bf16 pays on CPUs that have its products, and costs on others.
    """
    setting = config.policy.precision
    if setting == "auto":
        return automatic_precision(policy.device)
    if setting != "probe":
        return setting
    asked = [policy.encode(prompt) for prompt in prompts[:PROMPTS]]
    seconds = {precision: _seconds(policy, precision, config, asked) for precision in ("fp32", "bf16")}
    return min(seconds, key=seconds.__getitem__)


def _seconds(policy: Policy, precision: str, config: RunConfig, prompts: Sequence[TokenIds]) -> float:
    """The best of some rounds, since another process can only slow one down; the first warms up."""
    tried = replace(policy, precision=precision)
    with attention.as_loaded(policy.model, precision):
        return min([_round(tried, config, prompts) for _ in range(ROUNDS)][1:])


def _round(policy: Policy, config: RunConfig, prompts: Sequence[TokenIds]) -> float:
    k, limit = min(RESPONSES, config.generation.responses), min(TOKENS, config.generation.max_new_tokens)
    seeds = np.arange(len(prompts) * k, dtype=np.uint64).reshape(-1, k)
    begin = time.perf_counter()
    drawn = TransformersEngine().sample(policy, prompts, seeds, Sampling(limit)).tokens
    middle = time.perf_counter()
    rows = [drawn[i] for i in range(len(drawn))]
    batch = collate(prompts, rows, policy.pad_id, policy.device, share_prompts=policy.shares_prompts)
    torch.autograd.backward(response_logprobs(policy, batch).sum())
    policy.model.zero_grad(set_to_none=True)
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    own = not config.generation.engine.reads_files
    return own * (middle - begin) + config.training.epochs * (time.perf_counter() - middle)
