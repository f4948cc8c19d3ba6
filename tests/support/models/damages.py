"""Damages to a model's directory, by name, each with what a message must say of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, SPECIAL, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
TEMPLATE = "chat_template.jinja"
LAYER = "model.layers.1.mlp.up_proj.weight"
JSON_FILES = (CONFIG, TOKENIZER, SPECIAL, GENERATION, INDEX, "special_tokens_map.json", "added_tokens.json")
Damage = Callable[[Path], object]


# What is done to a directory


def written(name: str, content: str | bytes) -> Damage:
    """Puts a file there, in the place of another."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return damage


def edited(name: str, **changes: object) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return damage


def twice(name: str, key: str) -> Damage:
    """Says a thing again in the file's last line."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        text = json.dumps(values, indent=1)
        (folder / name).write_text(f'{text.rstrip()[:-1].rstrip()},\n "{key}": {json.dumps(values[key])}\n}}')

    return damage


def gone(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names]


def a_folder(name: str) -> Damage:
    return lambda folder: [gone(name)(folder), (folder / name).mkdir()]


def a_link(name: str, target: str) -> Damage:
    return lambda folder: [gone(name)(folder), (folder / name).symlink_to(target)]


def reweighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def sharded(index: object, shard: bytes | None = None) -> Damage:
    """An index in the place of the one file, and one shard, whole unless another is given."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "a.safetensors")
        if shard is not None:
            (folder / "a.safetensors").write_bytes(shard)
        (folder / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))

    return damage


def in_settings(template: object) -> Damage:
    """A chat template in the tokenizer's settings, where one in a file of its own would stand before it."""
    return lambda folder: [gone(TEMPLATE)(folder), edited(SPECIAL, chat_template=template)(folder)]


# Every damage, by name, with what the message must say of it

BAD_TEXTS = {
    "empty": b"",
    "cut": b'{"a": ',
    "binary": bytes(range(256)),
    "list": b"[]",
    "text": b'"text"',
    "null": b"null",
    "number": b"3",
    "deep": b"[" * 100_000,
    "digits": b'{"vocab_size": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "HTML": b"<!DOCTYPE html>",
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
}
# Values of config.json that the message names with their key.
NAMED: dict[str, list[object]] = {
    "vocab_size": [-1, 0, "60", 2.5, None, [60], 10**12, True],
    "hidden_size": [-16, 0, "16", None, 10**12],
    "num_hidden_layers": [-1, 0, "2", 2.0, None, 10**9],
    "num_attention_heads": [-4, 0, "4", None, [4]],
    "num_key_value_heads": [-2, 0, "2", 1.5],
    "intermediate_size": [-1, 0, "32", None],
    "max_position_embeddings": [-1, 0, "64", 1.5],
    "head_dim": [0, -4, "4", 5],
    "rms_norm_eps": ["small", [1]],
    "hidden_act": [3, None],
    "rope_parameters": ["x", 3, [], {"rope_type": "linear"}],
    "eos_token_id": ["</s>", -1, 60, 10**9, 1.5, ["x"], {}, True, [[1]]],
    "bos_token_id": ["<s>"],
    "pad_token_id": ["<pad>", 60, -61],
    "attention_bias": ["yes"],
    "tie_word_embeddings": ["yes"],
    "return_dict": [False],
    "auto_map": [{"AutoConfig": "x.Y"}, 3],
    **{name: [3] for name in ("save_pretrained", "to_json_file", "get_text_config", "__class__")},
    "_auto_class": ["x"],
}
# Others, which the library finds wrong in words of its own; the message names the file.
UNNAMED: dict[str, list[object]] = {
    "hidden_size": [17],
    "num_attention_heads": [3],
    "hidden_act": ["nonesuch"],
    "rope_parameters": [{"rope_type": "nonesuch"}, {"rope_theta": "x"}],
    "model_type": ["nonesuch", 3, None, []],
    "layer_types": [3, ["nonesuch", "nonesuch"]],
    "text_config": [3, [], "x"],
    "dtype": ["float99"],
}
PARTS: dict[str, list[object]] = {
    "model": [None, 3, {}, {"type": "Nonesuch"}, {"type": "BPE", "vocab": {}, "merges": []}],
    "added_tokens": [None, 3, [{}], [{"id": 99}]],
    "pre_tokenizer": [3, {"type": "Nonesuch"}],
    "decoder": [3],
    "normalizer": [3],
    "post_processor": [3, {"type": "TemplateProcessing"}],
    "version": ["9.0", None],
    "truncation": [3],
}
SETTINGS: dict[str, list[object]] = {
    "model_max_length": ["x", -1, 0],
    "eos_token": [3, []],
    "added_tokens_decoder": [3, {"x": 1}, {"1": 3}],
    "padding_side": ["up"],
    "extra_special_tokens": [3, {"a": 3}],
    "model_input_names": [3],
}
WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "absent"}
CASES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    **{f"{file}: {how}": (written(file, data), (file,)) for file in JSON_FILES for how, data in BAD_TEXTS.items()},
    **{f"{file}: folder": (a_folder(file), (f"{file} is a folder",)) for file in (*JSON_FILES, WEIGHTS, TEMPLATE)},
    **{
        f"{file}: link to {to}": (a_link(file, to), (f"{file} is a link to nothing",))
        for file in (*JSON_FILES, WEIGHTS, TEMPLATE)
        for to in ("nowhere", file)
    },
    **{f"{CONFIG}: {k} {v!r}": (edited(CONFIG, **{k: v}), (k,)) for k, values in NAMED.items() for v in values},
    **{f"{CONFIG}: {k} {v!r}": (edited(CONFIG, **{k: v}), (CONFIG,)) for k, values in UNNAMED.items() for v in values},
    **{f"{TOKENIZER}: {k} {v!r}": (edited(TOKENIZER, **{k: v}), (TOKENIZER,)) for k, vs in PARTS.items() for v in vs},
    **{f"{SPECIAL}: {k} {v!r}": (edited(SPECIAL, **{k: v}), (SPECIAL,)) for k, vs in SETTINGS.items() for v in vs},
    **{
        f"{GENERATION}: eos_token_id {value!r}": (edited(GENERATION, eos_token_id=value), ("eos_token_id",))
        for value in NAMED["eos_token_id"]
    },
    f"{CONFIG}: vocab_size twice": (twice(CONFIG, "vocab_size"), (CONFIG, "line ", "'vocab_size' stands twice")),
    f"{SPECIAL}: eos twice": (twice(SPECIAL, "eos_token"), (SPECIAL, "line ", "'eos_token' stands twice")),
    f"{GENERATION}: eos twice": (twice(GENERATION, "eos_token_id"), (GENERATION, "'eos_token_id' stands twice")),
    f"{CONFIG}: other layers": (edited(CONFIG, hidden_size=32), (CONFIG, "is of shape [60, 16]", "it has [60, 32]")),
    f"{CONFIG}: nothing": (written(CONFIG, "{}"), (CONFIG, "model_type")),
    f"{CONFIG}: gone": (gone(CONFIG), ("no config.json",)),
    f"{CONFIG}: quantised": (edited(CONFIG, quantization_config={"quant_method": "gptq"}), ("quantised (gptq)",)),
    f"{TOKENIZER}: nothing": (written(TOKENIZER, "{}"), (TOKENIZER,)),
    f"{TOKENIZER}: gone": (gone(TOKENIZER), (TOKENIZER,)),
    f"{TOKENIZER}: unknown word": (edited(TOKENIZER, model=WORDS), (TOKENIZER, "[UNK]")),
    "weights: gone": (gone(WEIGHTS), ("no safetensors weights",)),
    **{f"weights: cut at {s}": (cut(WEIGHTS, s), (WEIGHTS, "is damaged")) for s in (0.0, 0.001, 0.01, 0.3, 0.9999)},
    **{f"weights: {how}": (written(WEIGHTS, data), (WEIGHTS, "is damaged")) for how, data in BAD_TEXTS.items()},
    "weights: none": (lambda folder: save_file({}, folder / WEIGHTS, {"format": "pt"}), ("lacks 21 weights",)),
    "weights: one gone": (reweighted(lambda found: found.pop(LAYER)), ("lacks 1 weights", LAYER)),
    **{
        f"weights: shape {list(shape)}": (
            reweighted(lambda found, shape=shape: found.update({LAYER: torch.ones(shape)})),
            (LAYER, f"is of shape {list(shape)}", "it has [32, 16]"),
        )
        for shape in ((3, 4), (16,), (), (0, 16))
    },
    **{
        f"weights: {dtype}": (
            reweighted(lambda found, dtype=dtype: found.update({LAYER: torch.ones(32, 16, dtype=dtype)})),
            (WEIGHTS, LAYER, "whole numbers"),
        )
        for dtype in (torch.int64, torch.uint8, torch.bool)
    },
    "weights: complex": (
        reweighted(lambda found: found.update({LAYER: found[LAYER].to(torch.complex64)})),
        (WEIGHTS, LAYER, "complex numbers (C64)"),
    ),
    "weights: NaN": (reweighted(lambda found: found[LAYER].fill_(torch.nan)), ("NaN", "weights are damaged")),
    "index: no weights": (sharded({"metadata": {}, "weight_map": {}}), (INDEX, "names no weight")),
    "index: no map": (sharded({"metadata": {}}), (INDEX,)),
    "index: list": (sharded({"weight_map": ["a.safetensors"]}), (INDEX,)),
    "index: numbers": (sharded({"weight_map": {"a": 3}}), (INDEX, "lists 3")),
    "index: nested": (sharded({"weight_map": {"a": {"b": "c"}}}), (INDEX,)),
    "index: outside": (sharded({"weight_map": {"a": "../a.safetensors"}}), (INDEX, "'../a.safetensors'")),
    "index: no shard": (sharded({"weight_map": {"a": "b.safetensors"}}), ("lacks b.safetensors", INDEX)),
    "index: no metadata": (sharded({"weight_map": {LAYER: "a.safetensors"}}), (INDEX, "metadata")),
    "index: damaged shard": (
        sharded({"metadata": {}, "weight_map": {LAYER: "a.safetensors"}}, b"x"),
        ("a.safetensors",),
    ),
    "index: twice": (
        sharded('{"weight_map": {\n"a": "a.safetensors",\n"a": "b.safetensors"}}'),
        (INDEX, "line 3: the key 'a' stands twice"),
    ),
    **{
        f"template: {text!r}": (put, ("chat template", said))
        for text, said in {
            "{% for %}": "line 1",
            "{% for m in messages %}": "line 1",
            "\n{{ messages | nonesuch }}": "line 2",
            "{{ 1 / 0 }}": "division by zero",
            "{{ messages + 3 }}": "refuses its turns",
            "hello": "leaves out",
            "{% include 'x' %}": "refuses its turns",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
        }.items()
        for put in (written(TEMPLATE, text),)
    },
    **{f"template: {value!r} in settings": (in_settings(value), ("template",)) for value in (3, [], {}, "", "{%")},
    "template: binary": (written(TEMPLATE, bytes(range(256))), ("cannot be loaded", "utf-8")),
    "adapter": (written("adapter_config.json", "{}"), ("holds an adapter",)),
    "empty folder": (lambda folder: [shutil.rmtree(folder), folder.mkdir()], ("no config.json",)),
    "no folder": (shutil.rmtree, ("neither a directory here",)),
    "file": (lambda folder: [shutil.rmtree(folder), folder.write_text("x")], ("is a file, and no GGUF file",)),
}
