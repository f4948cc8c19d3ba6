"""Tiny models with random weights in the likeness of published families: special tokens, chat template, files.

Each tokenizer is a byte-level BPE that is trained on a few lines, so it takes any text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINES = [
    "What is the capital of France? Write a short story about a robot that learns to paint.",
    "Explain how photosynthesis works, step by step, and list three examples.",
    "The answer is forty two, because the question asks for the sum of both numbers.",
]


@dataclass(frozen=True)
class Family:
    """What sets a family's chat models apart."""

    model_type: str
    special: tuple[str, ...]  # special tokens beyond those of `roles`
    roles: dict[str, str]  # bos_token, eos_token, pad_token as the tokenizer's config has them
    template: str | None
    begins_with_bos: bool  # the tokenizer puts BOS before a text
    eos: tuple[str, ...]  # of generation_config.json
    shown: str  # what a prompt "Hi there" becomes, special tokens and all
    prompt_format: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "llama3": Family(
        model_type="llama",
        special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        roles={"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        template=(
            "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
            "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim }}"
            "{{ '<|eot_id|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        ),
        begins_with_bos=True,
        eos=("<|end_of_text|>", "<|eot_id|>"),
        shown=(
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
    ),
    "qwen2.5": Family(
        model_type="qwen2",
        special=("<|im_start|>",),
        roles={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        template=(
            "{% if messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
            "{% for message in messages %}"
            "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        ),
        begins_with_bos=False,
        eos=("<|im_end|>", "<|endoftext|>"),
        shown=(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
        config={"tie_word_embeddings": True},
    ),
    "gemma2": Family(
        model_type="gemma2",
        special=("<start_of_turn>", "<end_of_turn>"),
        roles={"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        template=(
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
            "{% endif %}{% for message in messages %}"
            "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
            "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
        ),
        begins_with_bos=True,
        eos=("<eos>", "<end_of_turn>"),
        shown="<bos><start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\n",
        config={"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    ),
    "mistral": Family(
        model_type="mistral",
        special=("[INST]", "[/INST]"),
        roles={"bos_token": "<s>", "eos_token": "</s>"},
        template=(
            "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
            "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}"
            "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
        ),
        begins_with_bos=True,
        eos=("</s>",),
        shown="<s>[INST] Hi there [/INST]",
        config={"sliding_window": 16},
    ),
    "lfm2": Family(  # a hybrid, whose cache takes no padding
        model_type="lfm2",
        special=("<|im_start|>", "<|im_end|>"),
        roles={"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"},
        template=(
            "{{ bos_token }}{% for message in messages %}"
            "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        ),
        begins_with_bos=True,
        eos=("<|im_end|>",),
        shown="<|startoftext|><|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
        config={"layer_types": ["conv", "full_attention"]},
    ),
    "gpt2": Family(
        model_type="gpt2",
        special=(),
        roles={"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        template=None,
        begins_with_bos=False,
        eos=("<|endoftext|>",),
        shown="Question: Hi there\nAnswer:",
        prompt_format="Question: {prompt}\nAnswer:",
        config={"n_inner": 64},
    ),
}


def make_tokenizer(family: Family, vocabulary: int = 320) -> Any:
    """The family's tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([*family.roles.values(), *family.special]))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    if family.begins_with_bos:
        bos = family.roles["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=family.template,
        extra_special_tokens=list(family.special),
        **family.roles,
    )


def shape(family: Family, tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """Settings of a tiny model."""
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **family.config,
        **changes,
    }
    if family.model_type == "gpt2":
        del settings["num_key_value_heads"], settings["intermediate_size"]
    return settings


def save_policy(family: Family, directory: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A causal language model of the family, as published: weights, tokenizer, template, generation config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = make_tokenizer(family)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family.model_type, **shape(family, tokenizer, **changes))
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(list(family.eos)), do_sample=True, temperature=0.6, top_p=0.9
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_reward_model(family: Family, directory: Path, *, seed: int = 1, **changes: Any) -> Path:
    """A sequence classifier of the family with one label."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = make_tokenizer(family)
    torch.manual_seed(seed)
    settings = shape(family, tokenizer, num_labels=1, initializer_range=0.3, **changes)
    config = AutoConfig.for_model(family.model_type, **settings)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


PIECES = "▁abcdefghijklmnopqrstuvwxyz"  # of one character each


def save_pairrm(directory: Path, *, seed: int = 2, pieces: Sequence[str] = PIECES, **changes: Any) -> Path:
    """PairRM's network with two small layers, or with changed settings, and a tokenizer of these pieces."""
    import torch
    from transformers import DebertaV2Config, DebertaV2Tokenizer

    from components.judges._pairrm import PairRMModel

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer = DebertaV2Tokenizer(vocab=[(piece, 0.0) for piece in [*special, *pieces]], unk_id=3)
    tokenizer.add_tokens(["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"])
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    config = DebertaV2Config(**{**settings, **changes})
    config.n_tasks = 1
    for key, marker in (("source", "source"), ("cand1", "candidate1"), ("cand2", "candidate2")):
        setattr(config, f"{key}_prefix_id", tokenizer.convert_tokens_to_ids(f"<|{marker}|>"))
    torch.manual_seed(seed)
    PairRMModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
