"""Llamas with random weights, of the size that a benchmark asks for."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def random_llama(*, vocabulary: int, hidden: int, layers: int, heads: int, **settings: Any) -> LlamaForCausalLM:
    """Each head with keys and values of its own, four times `hidden` inside a layer, and no special tokens.

    `settings` are further ones of LlamaConfig.
    """
    torch.manual_seed(0)
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        **{"max_position_embeddings": 512, "tie_word_embeddings": False, **special, **settings},
    )
    return LlamaForCausalLM(config).eval()
