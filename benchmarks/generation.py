"""Tokens per second of the transformers engine against `model.generate`, on small Llamas with random weights.

Run `python benchmarks/generation.py`. Both sample K responses to the same prompts in one batch, at the same
temperature. With EOS tokens in the vocabulary responses end by chance, as real ones do, and only tokens up to EOS
count; without, all have full length. Both run in turn on one thread and are timed in processor seconds, so that other
work on the machine blurs neither; the ratio is the median over rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.policy.model import Policy

K = 8
ROUNDS = 7


@dataclass(frozen=True)
class Case:
    """A model's shape and a workload."""

    name: str
    hidden: int
    layers: int
    vocabulary: int
    prompts: int
    prompt_tokens: int
    new_tokens: int  # at most
    eos_tokens: int  # how many of the vocabulary end a response


CASES = [
    Case("demo", 128, 4, 109, prompts=64, prompt_tokens=17, new_tokens=24, eos_tokens=9),
    Case("demo, full length", 128, 4, 109, prompts=64, prompt_tokens=17, new_tokens=24, eos_tokens=0),
    Case("larger", 384, 8, 8192, prompts=4, prompt_tokens=64, new_tokens=64, eos_tokens=250),
    Case("larger, full length", 384, 8, 8192, prompts=4, prompt_tokens=64, new_tokens=64, eos_tokens=0),
]


def random_policy(case: Case) -> Policy:
    """Random weights with heads of 32, as in the demo; the first tokens of the vocabulary are EOS."""
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
        pad_token_id=None,
    )
    eos = tuple(range(case.eos_tokens))
    words = models.WordLevel({f"w{token}": token for token in range(case.vocabulary)}, unk_token="w0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
    return Policy(LlamaForCausalLM(config).eval(), tokenizer, eos, case.vocabulary - 1, "fp32")


def engine_tokens(policy: Policy, prompts: NDArray[np.int64], case: Case, seed: int) -> int:
    """Samples once with the engine; the number of tokens."""
    seeds = np.arange(case.prompts * K, dtype=np.uint64).reshape(-1, K) + np.uint64(seed * 10**6)
    engine = TransformersEngine(batch_size=case.prompts * K)
    return len(engine.sample(policy, list(prompts), seeds, Sampling(case.new_tokens)).tokens.values)


@torch.inference_mode()
def generate_tokens(policy: Policy, prompts: NDArray[np.int64], case: Case, seed: int) -> int:
    """Samples once with `model.generate`; the number of tokens up to EOS."""
    torch.manual_seed(seed)
    ids = torch.from_numpy(prompts)
    output = policy.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=K,
        max_new_tokens=case.new_tokens,
        eos_token_id=list(policy.eos_ids) or None,
        pad_token_id=policy.pad_id,
    )
    stops = (output[:, case.prompt_tokens :] < case.eos_tokens).numpy()
    return int(np.where(stops.any(1), stops.argmax(1) + 1, stops.shape[1]).sum())


Sampler = Callable[[Policy, NDArray[np.int64], Case, int], int]


def tokens_per_second(sampler: Sampler, policy: Policy, prompts: NDArray[np.int64], case: Case, seed: int) -> float:
    """Rate of one call."""
    begin = time.process_time()
    return sampler(policy, prompts, case, seed) / (time.process_time() - begin)


def compare(case: Case) -> None:
    """Prints median rates and the median ratio."""
    policy = random_policy(case)
    prompts = np.random.default_rng(0).integers(1, case.vocabulary - 1, (case.prompts, case.prompt_tokens))
    rounds = [
        [tokens_per_second(sampler, policy, prompts, case, seed) for sampler in (engine_tokens, generate_tokens)]
        for seed in range(ROUNDS + 1)
    ][1:]  # the first one warms up
    ours, theirs = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    print(f"{case.name}: engine {ours:,.0f} tokens/s, generate {theirs:,.0f} tokens/s, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        compare(case)
