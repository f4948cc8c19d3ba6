"""Model directories with every kind of damage: each is refused with what is wrong, in which file, and a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, SPECIAL, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
Damage = Callable[[Path], object]


def written(name: str, content: str | bytes) -> Damage:
    """Puts a file there, in the place of another."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, share: float) -> Damage:
    return lambda folder: written(name, (folder / name).read_bytes()[: int(share * (folder / name).stat().st_size)])(
        folder
    )


def edited(name: str, **changes: object) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        (folder / name).write_text(json.dumps({**values, **changes}))

    return damage


def without(name: str, *keys: str) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: value for key, value in values.items() if key not in keys}))

    return damage


def twice(name: str, key: str, value: str) -> Damage:
    def damage(folder: Path) -> None:
        text = json.dumps({key: None, **json.loads((folder / name).read_text())}, indent=1)
        (folder / name).write_text(f'{text.rstrip()[:-1].rstrip()},\n "{key}": {value}\n}}')

    return damage


def alone(damage: Damage) -> Damage:
    """Without the file that a chat template in the tokenizer's config would stand back for."""
    return lambda folder: [(folder / "chat_template.jinja").unlink(), damage(folder)]


def a_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return damage


def a_link(name: str, target: str = "nowhere") -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def reweighted(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def sharded(index: object, *, shard: bytes | None = b"") -> Damage:
    """An index in the place of the one file, and a shard: the true weights if it is empty."""

    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).unlink()
        (folder / "a.safetensors").write_bytes(shard or data)
        (folder / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))

    return damage


def tokens(change: Callable[[dict], object]) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / TOKENIZER).read_text())
        change(values)
        (folder / TOKENIZER).write_text(json.dumps(values))

    return damage


EMBED, LAYER = "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"
ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
DEEP = "[" * 100_000
BAD_TEXTS = {
    "empty": b"",
    "cut": b'{"a": ',
    "binary": bytes(range(256)),
    "a list": b"[]",
    "a string": b'"text"',
    "null": b"null",
    "a number": b"3",
    "deep": DEEP.encode(),
    "digits": b'{"vocab_size": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "HTML": b"<!DOCTYPE html>",
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
}
VALUES = {
    "vocab_size": [-1, 0, "60", 2.5, None, [60], 10**12, True, 2**70],
    "hidden_size": [-16, 0, "16", 17, None, 15, 10**12],
    "num_hidden_layers": [-1, 0, "2", 2.0, None, 1000, 10**9],
    "num_attention_heads": [-4, 0, "4", 3, None, [4], 16],
    "num_key_value_heads": [-2, 0, "2", 3, 8, 1.5],
    "intermediate_size": [-1, 0, "32", None],
    "max_position_embeddings": [-1, 0, "64", 1.5],
    "rms_norm_eps": ["small", -1.0, [1]],
    "hidden_act": ["nonesuch", 3, None],
    "rope_parameters": ["x", 3, [], {"rope_type": "nonesuch"}, {"rope_type": "linear"}, {"rope_theta": "x"}],
    "head_dim": [0, -4, "4", 3, 5],
    "model_type": ["nonesuch", 3, None, "gpt2", "bert", "clip", "t5", []],
    "architectures": [3, "Llama", [3]],
    "dtype": ["float99", 3],
    "eos_token_id": ["</s>", -1, 60, 10**9, 1.5, [], ["x"], {}, True, [[1]]],
    "bos_token_id": ["<s>", 10**9],
    "pad_token_id": ["<pad>", 60, -61],
    "attention_bias": ["yes", 3],
    "tie_word_embeddings": ["yes"],
    "layer_types": [3, ["nonesuch", "nonesuch"], ["full_attention"]],
    "initializer_range": ["x", -1],
    "quantization_config": [{"quant_method": "gptq"}, "x", [1], {"quant_method": 3}],
    "text_config": [3, [], "x", {"vocab_size": "x"}],
    "auto_map": [{"AutoConfig": "x.Y"}, 3],
    "transformers_version": [3],
    "attn_implementation": ["nonesuch"],
    "_attn_implementation": ["nonesuch"],
    "use_cache": ["x"],
    "attention_dropout": ["x", -3.0],
    "mlp_bias": ["x"],
    "pretraining_tp": ["x", 0],
    "id2label": [3, ["a"]],
    "num_labels": ["x", -1],
    "problem_type": ["nonesuch"],
    "is_encoder_decoder": [True],
    "chunk_size_feed_forward": ["x"],
    "output_hidden_states": ["x"],
    "return_dict": [False],
}
CASES: dict[str, Damage] = {}
for file in (
    CONFIG,
    TOKENIZER,
    SPECIAL,
    GENERATION,
    WEIGHTS,
    INDEX,
    "wind.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "vocab.json",
):
    for kind, data in BAD_TEXTS.items():
        CASES[f"{file}: {kind}"] = written(file, data)
    CASES[f"{file}: a folder"] = a_folder(file)
    CASES[f"{file}: a dangling link"] = a_link(file)
    CASES[f"{file}: a link to itself"] = a_link(file, file)
for key, values in VALUES.items():
    for value in values:
        CASES[f"config.json: {key} {value!r}"] = edited(CONFIG, **{key: value})
for key, values in {
    "eos_token_id": VALUES["eos_token_id"],
    "temperature": ["x", -1],
    "max_length": ["x"],
    "do_sample": ["x"],
    "nonesuch": [3],
    "cache_implementation": ["x"],
    "pad_token_id": ["x", 10**9],
}.items():
    for value in values:
        CASES[f"generation_config.json: {key} {value!r}"] = edited(GENERATION, **{key: value})
for key, values in {
    "tokenizer_class": ["Nonesuch", 3, None, "BertTokenizer", "LlamaTokenizer", "T5Tokenizer"],
    "eos_token": [3, None, [], "new", {"content": "</s>"}, {"x": 1}, {"__type": "AddedToken"}],
    "chat_template": [
        "{% if %}",
        "{{ x.y.z }}",
        3,
        [],
        [{"name": "a"}],
        [{"name": "default", "template": "{%"}],
        {},
        "",
        "{{ messages[9].content }}",
        "{{ raise_exception('no') }}",
        "{{ 1/0 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ][:-1],
    "added_tokens_decoder": [3, {"x": 1}, {"1": 3}, {"1": {}}, {"70": {"content": "far"}}, {"-1": {"content": "z"}}],
    "model_max_length": ["x", -1, 0],
    "auto_map": [{"AutoTokenizer": ["x.Y", None]}, 3],
    "extra_special_tokens": [3, ["x"], {"a": 3}],
    "additional_special_tokens": [3, [3], "x"],
    "padding_side": ["up"],
    "clean_up_tokenization_spaces": ["x"],
    "add_bos_token": ["x"],
    "model_input_names": [3, ["x"]],
}.items():
    for value in values:
        CASES[f"tokenizer_config.json: {key} {value!r}"] = alone(edited(SPECIAL, **{key: value})) if key == "chat_template" else edited(SPECIAL, **{key: value})
for key, values in {
    "model": [
        None,
        3,
        {},
        {"type": "Nonesuch"},
        {"type": "BPE", "vocab": {}, "merges": []},
        {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]},
        {"type": "WordLevel", "vocab": {}, "unk_token": "x"},
        {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "x"},
        {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "nope"},
        {"type": "Unigram", "vocab": [], "unk_id": 5},
    ],
    "added_tokens": [
        None,
        3,
        [{}],
        [{"id": 99}],
        [
            {
                "id": 2,
                "content": "zz",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
    ],
    "pre_tokenizer": [
        3,
        {"type": "Nonesuch"},
        {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    ],
    "decoder": [3, {"type": "Nonesuch"}],
    "normalizer": [3, {"type": "Nonesuch"}],
    "post_processor": [
        3,
        {"type": "TemplateProcessing"},
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "zz", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        },
    ],
    "version": ["9.0", None],
    "truncation": [3, {"max_length": 1}],
    "padding": [3],
}.items():
    for value in values:
        CASES[f"tokenizer.json: {key} {value!r}"] = tokens(lambda t, key=key, value=value: t.update({key: value}))
for key, value in [("vocab_size", 60), ("model_type", '"llama"')]:
    CASES[f"config.json: {key} twice"] = twice(CONFIG, key, str(value))
CASES |= {
    "tokenizer_config.json: eos twice": twice(SPECIAL, "eos_token", '"</s>"'),
    "generation_config.json: eos twice": twice(GENERATION, "eos_token_id", "1"),
    "config.json: no model_type": without(CONFIG, "model_type"),
    "config.json: nothing": written(CONFIG, "{}"),
    "config.json: no vocab_size": without(CONFIG, "vocab_size"),
    "config.json: no hidden_size": without(CONFIG, "hidden_size"),
    "config.json: no layers": without(CONFIG, "num_hidden_layers"),
    "config.json: no eos": without(CONFIG, "eos_token_id"),
    "tokenizer.json: nothing": written(TOKENIZER, "{}"),
    "tokenizer.json: gone": lambda f: (f / TOKENIZER).unlink(),
    "tokenizer_config.json: gone": lambda f: (f / SPECIAL).unlink(),
    "tokenizer_config.json: nothing": written(SPECIAL, "{}"),
    "both tokenizers gone": lambda f: [(f / TOKENIZER).unlink(), (f / SPECIAL).unlink()],
    "weights: gone": lambda f: (f / WEIGHTS).unlink(),
    **{f"weights: cut at {share}": cut(WEIGHTS, share) for share in (0.001, 0.01, 0.3, 0.9999)},
    "weights: longer": lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"x" * 100),
    "weights: header of no end": lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 8 + (f / WEIGHTS).read_bytes()[8:]),
    "weights: header cut": lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:8] + b"{" * 3000),
    "weights: none inside": lambda f: save_file({}, f / WEIGHTS, metadata={"format": "pt"}),
    "weights: no format": lambda f: save_file(load_file(f / WEIGHTS), f / WEIGHTS),
    "weights: other format": lambda f: save_file(load_file(f / WEIGHTS), f / WEIGHTS, metadata={"format": "xx"}),
    "weights: one gone": reweighted(lambda t: t.pop(LAYER)),
    "weights: one too many": reweighted(lambda t: t.update(extra=torch.ones(3))),
    "weights: wrong shape": reweighted(lambda t: t.update({LAYER: torch.ones(3, 4)})),
    "weights: a vector": reweighted(lambda t: t.update({LAYER: torch.ones(16)})),
    "weights: a scalar": reweighted(lambda t: t.update({LAYER: torch.tensor(1.0)})),
    "weights: no rows": reweighted(lambda t: t.update({EMBED: torch.ones(0, 16)})),
    "weights: fewer rows": reweighted(lambda t: t.update({EMBED: torch.ones(50, 16)})),
    "weights: integers": reweighted(lambda t: t.update({LAYER: torch.ones(32, 16, dtype=torch.int64)})),
    "weights: booleans": reweighted(lambda t: t.update({LAYER: torch.ones(32, 16, dtype=torch.bool)})),
    "weights: NaN": reweighted(lambda t: t.update({LAYER: torch.full((32, 16), float("nan"))})),
    "weights: infinite": reweighted(lambda t: t.update({EMBED: torch.full((60, 16), float("inf"))})),
    "weights: renamed": reweighted(lambda t: [t.update({f"x.{k}": t.pop(k)}) for k in list(t)]),
    "index: names nothing": sharded({"metadata": {}, "weight_map": {}}),
    "index: no map": sharded({"metadata": {}}),
    "index: map a list": sharded({"weight_map": ["a.safetensors"]}),
    "index: map a text": sharded({"weight_map": "a.safetensors"}),
    "index: numbers": sharded({"weight_map": {"a": 3}}),
    "index: nested": sharded({"weight_map": {"a": {"b": "c"}}}),
    "index: another folder": sharded({"weight_map": {"a": "../a.safetensors"}}),
    "index: no shard": sharded({"weight_map": {"a": "b.safetensors"}}),
    "index: of others": sharded({"weight_map": {"a": "a.safetensors"}}),
    "index: of others, metadata": sharded({"metadata": {"total_size": 3}, "weight_map": {"a": "a.safetensors"}}),
    "index: metadata a text": sharded({"metadata": "x", "weight_map": {LAYER: "a.safetensors"}}),
    "index: empty shard": sharded({"metadata": {}, "weight_map": {LAYER: "a.safetensors"}}, shard=b"x"),
    "index: twice": sharded('{"weight_map": {\n"a": "a.safetensors",\n"a": "b.safetensors"}}'),
    "index: names one weight": sharded({"metadata": {}, "weight_map": {LAYER: "a.safetensors"}}),
    "template: syntax": written("chat_template.jinja", "{% for %}"),
    "template: empty": written("chat_template.jinja", ""),
    "template: binary": written("chat_template.jinja", bytes(range(256))),
    "template: no end": written("chat_template.jinja", "{% for m in messages %}"),
    "template: unknown filter": written("chat_template.jinja", "{{ messages | nonesuch }}"),
    "template: divides by zero": written("chat_template.jinja", "{{ 1 / 0 }}"),
    "template: index": written("chat_template.jinja", "{{ messages[7].content.x }}"),
    "template: type": written("chat_template.jinja", "{{ messages + 3 }}"),
    "template: constant": written("chat_template.jinja", "hello"),
    "template: include": written("chat_template.jinja", "{% include 'x' %}"),
    "template: recursion": written("chat_template.jinja", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "template: deep": written("chat_template.jinja", "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"),
    "template: unsafe": written("chat_template.jinja", "{{ messages.__class__.__mro__ }}"),
    "template: big range": written("chat_template.jinja", "{% for i in range(10000000) %}x{% endfor %}"),
    "template: a folder": a_folder("chat_template.jinja"),
    "template: dangling": a_link("chat_template.jinja"),
    "adapter: peft's, of a model": written("adapter_config.json", json.dumps(ADAPTER)),
    "all files: empty folder": lambda f: [shutil.rmtree(f), f.mkdir()],
    "all files: gone": shutil.rmtree,
    "all files: a file": lambda f: [shutil.rmtree(f), f.write_text("x")],
}
