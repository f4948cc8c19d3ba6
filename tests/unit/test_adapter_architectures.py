"""LoRA on all kinds of architectures: what is adapted trains, and is kept, loaded and merged; the rest is told."""

from __future__ import annotations

import json
import logging
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.config.sections import LoraConfig
from components.policy import lora
from support.models.architectures import KINDS, make

IDS = torch.arange(6, 26).reshape(2, 10)
LORA = LoraConfig(rank=2, alpha=8)
pytestmark = pytest.mark.filterwarnings("ignore")


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


def adapted(name):
    """A model whose adapter does something."""
    model = make(name)
    lora.add(model, LORA, 0)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in lora.weights(model).items():
            if "lora_B" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=noise) * 0.3)
    return model


@pytest.mark.thorough(but=["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind != "refused"])
def test_kept_loaded_and_merged(name, tmp_path):
    base = make(name)
    base.save_pretrained(tmp_path / "policy")
    model = adapted(name)
    model(input_ids=IDS, use_cache=False).logits.square().sum().backward()
    weights = lora.weights(model)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in weights.values())
    assert {key for key, parameter in model.named_parameters() if parameter.requires_grad} == weights.keys()
    lora.save(model, tmp_path / "policy")
    assert len(load_file(tmp_path / "policy" / "adapter" / "adapter_model.safetensors")) == len(weights)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    lora.load(again.eval(), tmp_path / "policy" / "adapter")
    loaded = lora.weights(again)
    assert all(torch.equal(loaded[key], parameter) for key, parameter in weights.items())
    # Not to the bit: some processors multiply an expert's few rows in another order where they lie otherwise in memory.
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-6, atol=1e-6 * logits(model).abs().max().item())
    lora.merge(tmp_path / "policy", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert not (tmp_path / "merged" / "adapter").exists()
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-4 * logits(model).abs().max().item())
    assert not torch.allclose(logits(merged), logits(base), atol=1e-2)


def test_equal_adapters_are_equal_files(tmp_path):
    for name in ("a", "b"):
        lora.save(adapted("qwen3_moe"), tmp_path / name)
    a, b = ((tmp_path / name / "adapter" / "adapter_config.json").read_bytes() for name in "ab")
    assert a == b
    assert json.loads(a)["r"] == 2


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("mixtral", ["mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        ("gpt_oss", ["mlp.router.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        ("qwen2_moe", ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]),
        ("llama4_text", ["feed_forward.router.weight", "feed_forward.experts.gate_up_proj"]),
        ("mamba2", ["mixer.conv1d.weight", "mixer.out_proj.weight"]),
    ],
)
def test_what_is_left_out_is_told(name, left_out, caplog):
    model = make(name)
    with caplog.at_level(logging.WARNING):
        lora.check(model, LORA)
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("components.")]
    assert all(weight in line for weight in left_out)
    lora.add(model, LORA, 0)
    reached = Counter(key.partition(".lora_")[0] for key in lora.weights(model))
    assert not any(weight.removesuffix(".weight") in key for weight in left_out for key in reached)


def test_nothing_is_told_of_a_dense_model_or_where_layers_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        lora.check(make("llama"), LORA)
        lora.check(make("mixtral"), LoraConfig(target_modules=["q_proj"]))
    assert not [record for record in caplog.records if record.name.startswith("components.")]
