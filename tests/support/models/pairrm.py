"""A small checkpoint of PairRM as the original writes it, and the original's arithmetic."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *"abcdefghijklmnop"]
CLS, SEP = 1, 2
SOURCE, FIRST, SECOND = 21, 22, 23  # markers follow the words
SIZE, LAYERS = 16, 2
PROMPTS = [
    Prompt("short", ({"role": "user", "content": "a"},)),
    Prompt("long", ({"role": "user", "content": "a b c d e"},)),
]


def save_original(tmp_path):
    """A checkpoint as the original's `save_pretrained` leaves it, written without our class."""
    from transformers import DebertaV2Config, DebertaV2Model, DebertaV2Tokenizer

    settings = {
        "vocab_size": 32,
        "hidden_size": SIZE,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    encoder = DebertaV2Model(DebertaV2Config(**settings))
    weights = {f"pretrained_model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    weights["head_layer.1.weight"], weights["head_layer.1.bias"] = torch.randn(SIZE, 2 * SIZE), torch.randn(SIZE)
    weights["head_layer.4.weight"], weights["head_layer.4.bias"] = torch.randn(1, SIZE), torch.randn(1)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    markers = {"source_prefix_id": SOURCE, "cand1_prefix_id": FIRST, "cand2_prefix_id": SECOND, "cand_prefix_id": 24}
    own = {"architectures": ["DebertaV2PairRM"], "model_type": "deberta-v2", "drop_out": 0.05, "n_tasks": 1}
    (tmp_path / "config.json").write_text(json.dumps({**settings, **own, **markers, "sep_token_id": SEP}))
    pieces = [(word if word.startswith("[") else f"▁{word}", 0.0) for word in WORDS]
    tokenizer = DebertaV2Tokenizer(vocab=pieces, unk_id=3)
    tokenizer.add_tokens(["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"])
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def judge(folder, **settings):
    return build("judges", {"name": "pairrm", "model": str(folder), **settings}, Judge)
