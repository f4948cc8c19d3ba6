"""Small reward models of several architectures, and their scores worked out apart."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from transformers import AddedToken, AutoConfig, AutoModel, AutoModelForSequenceClassification, Qwen2Tokenizer

from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge

BOS, EOS, PAD, UNK, USER, END = range(6)  # of the tokenizers in support.models.words; word w7 has id 7
CHAT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %} {{ 'user:' if m['role'] == 'user' else 'w6' }} {{ m['content'] }} <end>"
    "{% endfor %}{% if add_generation_prompt %} w6{% endif %}"
)
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # wide, so that scores differ
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "num_labels": 1,
}
GPT2 = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
DEBERTA = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
ARCHITECTURES = {
    "llama": {"pad_token_id": PAD, "num_key_value_heads": 2},
    "qwen2": {"pad_token_id": None, "num_key_value_heads": 2},
    "gpt2": {"pad_token_id": None, **GPT2},
    "deberta-v2": {"pad_token_id": PAD, **DEBERTA},
}
PROMPTS = [
    Prompt("short", ({"role": "user", "content": "w7"},)),
    Prompt("long", ({"role": "user", "content": "w7 w8 w9 w10 w11"},)),
]
RESPONSES = [["w20", "w21 w22 w23 w24", ""], ["w25 w26 w27 w28 w29 w30 w31", "w32 w33", "w34"]]
# What the model must read of them, written out: BOS once, the words, each turn closed by <end>
INPUTS = [
    [
        [BOS, USER, 7, END, 6, 20, END],
        [BOS, USER, 7, END, 6, 21, 22, 23, 24, END],
        [BOS, USER, 7, END, 6, END],
    ],
    [
        [BOS, USER, 7, 8, 9, 10, 11, END, 6, 25, 26, 27, 28, 29, 30, 31, END],
        [BOS, USER, 7, 8, 9, 10, 11, END, 6, 32, 33, END],
        [BOS, USER, 7, 8, 9, 10, 11, END, 6, 34, END],
    ],
]


def save_reward(
    folder, tokenizers, architecture="llama", template=CHAT, *, around="<s> $A </s>", size=60, kind=None, **changes
):
    settings = {**SHAPE, **ARCHITECTURES[architecture], **changes}
    if architecture == "gpt2":
        settings["n_inner"] = settings.pop("intermediate_size")
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **settings)
    (kind or AutoModelForSequenceClassification).from_config(config).save_pretrained(folder)
    tokenizer = qwen2_tokenizer(template) if architecture == "qwen2" else None
    (tokenizer or tokenizers(template, around=around, size=size)).save_pretrained(folder)
    return folder


def qwen2_tokenizer(template):
    """The words of support.models.words for the class that transformers gives to every Qwen2, whatever was saved."""
    words = ["<s>", "</s>", "<pad>", "<unk>", "user:", "<end>", *(f"w{i}" for i in range(6, 60))]
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=template, **special)
    tokenizer.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in words[4:]])
    return tokenizer


def judge(folder, **settings):
    return build("judges", {"name": "reward_model", "model": str(folder), **settings}, Judge)


def scores(folder, responses=RESPONSES, prompts=PROMPTS, **settings):
    return judge(folder, precision="fp32", **settings).judge(prompts[: len(responses)], responses).reward


@torch.no_grad()
def last_token_score(folder, ids):
    """The head, multiplied out by hand, on the base model's hidden state of the last token of one input."""
    hidden = AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0, -1]
    head = load_file(folder / "model.safetensors")["score.weight"]
    return float(hidden.double().numpy() @ head[0].double().numpy())
