"""Weights in the files and weights of the model are the same ones, or the model is refused with a weight's name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from components.config.errors import JudgeError, PolicyError
from components.judges import _models
from components.judges.llm_judge import LLMJudge
from components.judges.reward_model import RewardModel
from components.policy import pretrained, whole
from components.policy.weight_files import INDEX
from support.models.words import SHAPE

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "model", LlamaForCausalLM(LlamaConfig(**SHAPE)))


def saved(folder, model, **config):
    """The model's files, with what its config says changed."""
    model.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def add(folder, **weights):
    """More weights in the files of a folder."""
    found = load_file(folder / "model.safetensors")
    save_file(found | weights, folder / "model.safetensors", {"format": "pt"})


def read(folder, kind=AutoModelForCausalLM):
    options = {"key": "policy", "name": "m", "code": False, "dtype": torch.float32, "remedy": "Save it whole."}
    return pretrained.read(folder, kind, **options)


# Two layers of three projections each (q, k, v) have a bias in Qwen2, of four (o too) with attention_bias, of three
# (gate, up, down) with mlp_bias; a layer of Llama has nine weights.
@pytest.mark.parametrize(
    ("model", "said", "number", "weight"),
    [
        (LlamaForCausalLM(LlamaConfig(**SHAPE)), {"num_hidden_layers": 1}, 9, "model.layers.1.input_layernorm.weight"),
        (LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True)), {"attention_bias": False}, 8, "k_proj.bias"),
        (LlamaForCausalLM(LlamaConfig(**SHAPE, mlp_bias=True)), {"mlp_bias": False}, 6, "mlp.down_proj.bias"),
        (Qwen2ForCausalLM(Qwen2Config(**SHAPE)), {"model_type": "llama"}, 6, "model.layers.0.self_attn.k_proj.bias"),
    ],
    ids=["layers", "attention biases", "MLP biases", "another model type"],
)
def test_weights_that_the_model_has_no_place_for_are_refused(tmp_path, model, said, number, weight):
    folder = saved(tmp_path / "model", model, **said)
    with pytest.raises(PolicyError, match=rf"LlamaForCausalLM .* no place for {number} of its weights, .*{weight}"):
        read(folder)


@pytest.mark.parametrize("kind", [LLMJudge, RewardModel])
def test_so_are_a_judges(tmp_path, make_tokenizer, kind):
    language = kind is LLMJudge
    model = (LlamaForCausalLM if language else LlamaForSequenceClassification)(LlamaConfig(**SHAPE, num_labels=1))
    folder = saved(tmp_path / "judge", model)
    make_tokenizer("{% for m in messages %}{{ m['content'] }} {% endfor %}").save_pretrained(folder)
    name = "lm_head.bias" if language else "score.bias"
    add(folder, **{name: torch.ones(60 if language else 1)})
    _models.unload()
    with pytest.raises(JudgeError, match=rf"judge\.model: .* no place for 1 of its weights, {name}"):
        kind(model=str(folder)).check()


@pytest.mark.parametrize(
    "name",
    [
        *("model.layers.0.self_attn.rotary_emb.inv_freq", "transformer.h.0.attn.bias", "h.0.attn.masked_bias"),
        *("transformer.h.0.attn.attention.masked_bias", "model.embeddings.position_ids", "model.decoder.version"),
        *("vision_tower.blocks.0.weight", "model.visual.merger.weight", "multi_modal_projector.linear.weight"),
        *("audio_tower.conv.weight", "model.image_newline", "mtp.layers.0.weight", "model.mtp_layers.0.weight"),
        "v_head.summary.weight",
    ],
)
def test_what_no_text_is_computed_with_may_be_left_over(folder, name):
    add(folder, **{name: torch.ones(1)})
    read(folder)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.bias", "model.layers.0.self_attn.q_proj.bias", "score.weight"])
def test_nothing_else_may(folder, name):
    add(folder, **{name: torch.ones(1)})
    with pytest.raises(PolicyError, match=name):
        read(folder)


def test_layers_that_foretell_further_tokens_come_behind_the_others(folder):
    model = read(folder)
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in (2, 3, 21)]
    assert whole.left_over(model, names) == sorted(names)
    model.config.num_nextn_predict_layers = 1
    assert whole.left_over(model, names) == sorted(names[1:])


def test_a_reward_model_may_keep_the_head_of_its_language_model(tmp_path):
    folder = saved(tmp_path / "judge", LlamaForSequenceClassification(LlamaConfig(**SHAPE, num_labels=1)))
    add(folder, **{"lm_head.weight": torch.ones(60, 16)})
    read(folder, AutoModelForSequenceClassification)
    add(folder, **{"v_head.summary.weight": torch.ones(1, 16)})  # which of the two would score?
    with pytest.raises(PolicyError, match="v_head"):
        read(folder, AutoModelForSequenceClassification)


@pytest.mark.parametrize("scale", [True, False])
def test_weights_of_8_bits_are_refused(folder, scale):
    found = load_file(folder / "model.safetensors")
    more = {f"{UP}_scale_inv": torch.ones(1)} if scale else {}
    add(folder, **{UP: found[UP].to(torch.float8_e4m3fn)}, **more)
    with pytest.raises(PolicyError, match=rf"{UP} is quantised \(F8_E4M3\)"):
        read(folder)


def shards(folder, held, listed):
    """The folder's weights, apart from its head, in a.safetensors; the head where `held` says, and by the index."""
    found = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    head = found.pop("lm_head.weight")
    files = {"a.safetensors": found, "b.safetensors": {"other": torch.ones(1)}}
    for value, name in enumerate(held):
        files[name]["lm_head.weight"] = head * (1 - value)
    files["b.safetensors"].pop("other")
    for name, weights in files.items():
        save_file(weights, folder / name, {"format": "pt"})
    weight_map = {**dict.fromkeys(found, "a.safetensors"), "lm_head.weight": listed}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return head


A, B = "a.safetensors", "b.safetensors"


@pytest.mark.parametrize("held", [(A, B), (B, A)])
@pytest.mark.parametrize("listed", [A, B])
def test_a_stale_copy_of_a_weight_in_another_shard(folder, held, listed):
    shards(folder, held, listed)
    if listed == A:  # an index that names the other shard for nothing at all
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"]["lm_head.weight"], index["weight_map"]["model.norm.weight"] = A, B
        (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(PolicyError, match=rf"both in {A} and in {B}|has \S+ in {listed}, and it is in|has model.norm"):
        read(folder)


def test_a_weight_in_another_shard_than_the_index_says(folder):
    shards(folder, (A,), B)
    with pytest.raises(PolicyError, match=rf"its {INDEX} has lm_head.weight in {B}, and it is in {A}"):
        read(folder)


def test_shards_as_their_index_says(folder):
    head = shards(folder, (B,), B)
    assert torch.equal(read(folder).lm_head.weight, head)
