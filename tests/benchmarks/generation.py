"""Tokens per second of the transformers engine against `model.generate`, on two small Llamas.

Run `python tests/benchmarks/generation.py`. Both sample the same number of responses of the same length to the same
prompts; rounds alternate, so that a busy machine slows both, and the ratio is the median over rounds.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.policy import Policy

K = 8
ROUNDS = 7


@dataclass(frozen=True)
class Case:
    """A model's shape and a workload."""

    hidden: int
    layers: int
    vocabulary: int
    prompts: int
    prompt_tokens: int
    new_tokens: int


CASES = {
    "demo": Case(hidden=128, layers=4, vocabulary=109, prompts=64, prompt_tokens=17, new_tokens=24),
    "larger": Case(hidden=384, layers=8, vocabulary=8192, prompts=4, prompt_tokens=64, new_tokens=64),
}


def random_llama(case: Case) -> LlamaForCausalLM:
    """Random weights; heads of 32 as in the demo."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=4 * case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // 32,
        num_key_value_heads=case.hidden // 32,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def engine_seconds(policy: Policy, prompts: NDArray[np.int64], case: Case) -> float:
    """One call of the engine; no token of its vocabulary ends a response."""
    seeds = np.arange(case.prompts * K, dtype=np.uint64).reshape(-1, K)
    engine = TransformersEngine(batch_size=case.prompts * K)
    begin = time.perf_counter()
    samples = engine.sample(policy, list(prompts), seeds, Sampling(case.new_tokens))
    seconds = time.perf_counter() - begin
    assert (samples.tokens.lengths == case.new_tokens).all()
    return seconds


@torch.inference_mode()
def generate_seconds(policy: Policy, prompts: NDArray[np.int64], case: Case) -> float:
    """One call of `model.generate` over the same batch."""
    ids = torch.from_numpy(prompts)
    begin = time.perf_counter()
    output = policy.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=K,
        max_new_tokens=case.new_tokens,
    )
    seconds = time.perf_counter() - begin
    assert output.shape == (case.prompts * K, case.prompt_tokens + case.new_tokens)
    return seconds


def compare(name: str, case: Case) -> float:
    """Prints tokens per second of both, returns the median ratio."""
    model = random_llama(case)
    never = case.vocabulary  # an EOS id that no token has
    policy = Policy(model, PreTrainedTokenizerFast, (never,), 0, "fp32")
    prompts = np.random.default_rng(0).integers(1, case.vocabulary, (case.prompts, case.prompt_tokens))
    engine_seconds(policy, prompts, case)
    generate_seconds(policy, prompts, case)
    pairs = [(engine_seconds(policy, prompts, case), generate_seconds(policy, prompts, case)) for _ in range(ROUNDS)]
    tokens = case.prompts * K * case.new_tokens
    ours, theirs = (tokens / statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(f"{name}: engine {ours:,.0f} tokens/s, generate {theirs:,.0f} tokens/s, ratio {ratio:.2f}")
    return ratio


if __name__ == "__main__":
    for name, case in CASES.items():
        compare(name, case)
