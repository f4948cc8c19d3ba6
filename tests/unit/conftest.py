"""Shared by all unit tests: tiny models of several architectures with random weights, and tokenizers for them.

A fixture gives a function, so that tests which need no model do not import torch.
"""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def make_model():
    """`make_model(name, seed=0, **config)`: an architecture of the table above, in eval mode and fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)  # on busy cores, threads that wait for each other make tiny models ten times slower

    def make(name="llama", *, seed=0, **changes):
        settings = {**SHAPE, **ARCHITECTURES[name], **changes}
        if name == "gpt2":
            del settings["num_key_value_heads"], settings["intermediate_size"]
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)).eval()

    return make


MAIN = ("llama", "qwen2", "gemma2")  # tied weights, sliding windows and caps among them


@pytest.fixture(
    params=[name if name in MAIN else pytest.param(name, marks=pytest.mark.thorough) for name in ARCHITECTURES]
)
def model(request, make_model):
    """Each architecture in turn."""
    return make_model(request.param)


@pytest.fixture(scope="session")
def make_tokenizer():
    """`make_tokenizer(template=None, around=None, …)`: words w6 … w59 and a few special ones, each one token.

    `around` is what the tokenizer itself puts around a text, such as "<s> $A </s>".
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def make(template=None, *, around=None, eos_token="</s>", size=VOCABULARY):
        words = ["<s>", "</s>", "<pad>", "<unk>", "user:", "<end>", *(f"w{i}" for i in range(6, size))]
        vocabulary = {word: i for i, word in enumerate(words)}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        if around:
            backend.post_processor = processors.TemplateProcessing(
                single=around, special_tokens=[("<s>", 0), ("</s>", 1)]
            )
        special = {"bos_token": "<s>", "eos_token": eos_token, "pad_token": "<pad>", "unk_token": "<unk>"}
        return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special)

    return make


@pytest.fixture(scope="session")
def make_policy(make_model, make_tokenizer):
    """`make_policy(model, **fields)`: a policy around a model, or around an architecture's name."""
    from components.policy.model import Policy

    def make(model="llama", *, eos_ids=(EOS, OTHER_EOS), precision="fp32"):
        model = make_model(model) if isinstance(model, str) else model
        return Policy(model, make_tokenizer(), eos_ids, PAD, precision)

    return make
