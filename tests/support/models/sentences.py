"""A small sentence-embedding model as sentence-transformers writes one, and its embeddings worked out apart."""

from __future__ import annotations

import json

import numpy as np
import torch
from transformers import AutoModel, BertConfig, BertModel

from support.models.words import word_tokenizer

WORDS = ["<s>", "</s>", "<pad>", "<unk>", *(f"w{i}" for i in range(4, 60)), *map(str, range(100)), "sort"]
MEAN, FIRST = "pooling_mode_mean_tokens", "pooling_mode_cls_token"
POSITIONS = 48
MODULES = ["Transformer", "Pooling", "Normalize"]


def save_sentences(folder, *, pooling=MEAN, modules=MODULES, limit=32, **config):
    torch.manual_seed(0)
    shape = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "max_position_embeddings": POSITIONS, "initializer_range": 0.5}
    BertModel(BertConfig(**shape | config)).save_pretrained(folder)
    tokenizer = word_tokenizer(WORDS, around="<s> $A </s>")
    tokenizer.save_pretrained(folder)
    listed = [{"idx": i, "path": f"{i}_{name}" if i else "", "type": f"a.{name}"} for i, name in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    modes = dict.fromkeys((MEAN, FIRST, "pooling_mode_max_tokens"), False) | {pooling: True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))
    if limit is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    return folder


@torch.no_grad()
def embedded(folder, words, *, pooling=MEAN):
    """The unit vector of one text's words, alone and without padding, the ends around them."""
    ids = [0, *(WORDS.index(word) if word in WORDS else 3 for word in words), 1]
    states = AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    vector = states.mean(0) if pooling == MEAN else states[0]
    return vector / np.sqrt((vector**2).sum())
