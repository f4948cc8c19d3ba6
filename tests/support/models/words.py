"""Tiny models of several architectures with random weights, and tokenizers of whole words for them.

A token is a word: a few special ones, and w6, w7 and so on, of which w7 has id 7.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

VOCABULARY = 60
EOS, OTHER_EOS, PAD = 1, 5, 2

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # wide, so that logits differ by several nats
    "bos_token_id": 0,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}

# What is special about each; windows and caps are small enough to matter in a few tokens.
ARCHITECTURES = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 4},
    "gemma2": {
        "sliding_window": 4,
        "head_dim": 4,
        "query_pre_attn_scalar": 4,
        "final_logit_softcapping": 2.0,
        "attn_logit_softcapping": 3.0,
    },
    "granite": {"logits_scaling": 0.3, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {"n_inner": 32, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
}
MAIN = ("llama", "qwen2", "gemma2")  # tied weights, sliding windows and caps among them
# For tests of all of them; those beside the main ones are for make test-all.
EACH = [name if name in MAIN else pytest.param(name, marks=pytest.mark.thorough) for name in ARCHITECTURES]


def word_tokenizer(
    words: Sequence[str], template: str | None = None, *, around: str | None = None, eos_token: str = "</s>"
) -> Any:
    """A token for each word, the first of which are <s>, </s>, <pad> and <unk>.

    `around` is what the tokenizer itself puts around a text, such as "<s> $A </s>".
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if around:
        backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 0), ("</s>", 1)])
    special = {"bos_token": "<s>", "eos_token": eos_token, "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special)


def make_tokenizer(template: str | None = None, *, size: int = VOCABULARY, **options: Any) -> Any:
    """The words of the models below, or so many."""
    words = ["<s>", "</s>", "<pad>", "<unk>", "user:", "<end>", *(f"w{i}" for i in range(6, size))]
    return word_tokenizer(words, template, **options)


def make_model(name: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """An architecture of the table above, in eval mode and fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)  # on busy cores, threads that wait for each other make tiny models ten times slower
    settings = {**SHAPE, **ARCHITECTURES[name], **changes}
    if name == "gpt2":
        del settings["num_key_value_heads"], settings["intermediate_size"]
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)).eval()


def edit(file: Path, **changes: Any) -> None:
    """Replaces keys of a model's JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
