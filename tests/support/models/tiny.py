"""A policy that is small enough for unit tests, and responses to train it on."""

from __future__ import annotations

import importlib.util
from functools import partial

import numpy as np
import pytest
import torch

from components.data.records import Prompt, Ragged, Rollout, Scored
from components.policy.logprobs import score_responses
from components.policy.model import Policy
from support.models.words import make_model, word_tokenizer

WORDS = ["<s>", "</s>", "<pad>", "<unk>", *"abcdefghijklmnop"]
EOS, PAD = 1, 2

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install -r requirements-dev.txt"
)
OPTIMIZERS = ["adamw", "rmsprop", pytest.param("adamw_8bit", marks=needs_bitsandbytes)]


def make_policy(*, seed=0, dtype=torch.float32, tied=False, hidden_size=16):
    """A Llama with random weights over 20 words, in fp32 by default, and a chat template of bare words."""
    tokenizer = word_tokenizer(WORDS, "{{ bos_token }} {{ messages[-1]['content'] }}")
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2}
    own = {"vocab_size": len(WORDS), "hidden_size": hidden_size, "tie_word_embeddings": tied}
    return Policy(make_model("llama", seed=seed, **heads, **own).to(dtype), tokenizer, (EOS,), PAD, "fp32")


wide_policy = partial(make_policy, hidden_size=64)  # its largest matrices are just large enough for 8-bit moments


def make_prompts(n):
    """n prompts of one to four words."""
    letters = WORDS[4:]
    texts = [" ".join(letters[(3 * i + j) % len(letters)] for j in range(1 + i % 4)) for i in range(n)]
    return [Prompt(f"p{i}", ({"role": "user", "content": text},)) for i, text in enumerate(texts)]


def make_scored(policy, *, n, k, seed=0):
    """Random responses of 1 to 7 tokens with their log-probs, and random preferences with ties."""
    rng = np.random.default_rng(seed)
    rows = [[*rng.integers(4, len(WORDS), rng.integers(0, 7)), EOS] for _ in range(n * k)]
    prompts, responses = Ragged.of([policy.encode(p) for p in make_prompts(n)]), Ragged.of(rows)
    rollout = Rollout([f"p{i}" for i in range(n)], prompts, responses, ["?"] * (n * k), np.ones((n, k), bool))
    wins = np.triu(rng.choice([0.0, 0.2, 0.5, 1.0], size=(n, k, k)), 1)
    preference = wins + np.tril(1 - wins.swapaxes(1, 2), -1) + 0.5 * np.eye(k)
    logp_old = score_responses(policy, prompts, responses)
    logp_ref = logp_old + rng.normal(scale=0.3, size=(n, k))
    return Scored(rollout, logp_old, logp_ref, preference, np.full((n, k), np.nan))
