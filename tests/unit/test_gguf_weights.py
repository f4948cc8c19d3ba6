"""GGUF files to directories: weights, shape and what the model computes are those of the model in the file."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.gguf_files import convert
from components.policy.model import load
from support.models.families import FAMILIES, make_tokenizer
from support.models.ggufs import byte_level, logits, make_model, write

pytestmark = pytest.mark.thorough

IDS = [7, 300, 12, 12, 45, 201, 9, 3, 88, 150]
CHAT = FAMILIES["llama3"]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level(make_tokenizer(CHAT))


@pytest.fixture
def converted(tmp_path, tokenizer):
    """`converted(model, fields, …)`: the directory that comes of a model's file."""

    def make(model, fields=(), **options):
        pre = "qwen2" if model.config.model_type == "qwen2" else "gpt-2"  # Qwen2's directories take no other
        stated = {**tokenizer, "tokenizer.ggml.pre": pre, **dict(fields)}
        file = write(tmp_path / "tiny.gguf", model, stated, **options)
        return convert(file, tmp_path / "policy", PolicyConfig(model=str(file)))

    return make


def assert_same(directory, model):
    """The directory loads as a policy that holds a model's weights and computes what it computes."""
    loaded = load(directory, PolicyConfig()).model
    expected = dict(model.named_parameters())
    assert {name for name, _ in loaded.named_parameters()} == expected.keys()
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(loaded, IDS), logits(model, IDS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_weight_is_kept(converted, architecture, tied):
    model = make_model(architecture, tie_word_embeddings=tied)
    directory = converted(model)
    assert_same(directory, model)
    assert json.loads((directory / "config.json").read_text())["tie_word_embeddings"] is tied


def test_gemma2(converted):
    """Norms are stored with one added; the head's size also scales the attention, which the file does not say."""
    assert_same(converted(make_model("gemma2")), make_model("gemma2"))


@pytest.mark.parametrize("tied", [False, True])
def test_gpt2(converted, tied):
    model = make_model("gpt2", tie_word_embeddings=tied)
    assert_same(converted(model), model)


def test_heads_of_another_size_than_the_hidden_size_gives(converted):
    model = make_model("llama", head_dim=32)
    sizes = {"llama.attention.key_length": 32, "llama.attention.value_length": 32, "llama.rope.dimension_count": 32}
    assert_same(converted(model, sizes), model)


def test_what_the_file_leaves_out_is_what_llama_cpp_takes(converted):
    """As many key-value heads as heads, and a base of 10,000."""
    model = make_model("qwen2", num_key_value_heads=4)
    assert model.config.rope_parameters["rope_theta"] == 10000.0
    left_out = {"qwen2.attention.head_count_kv": None, "qwen2.rope.freq_base": None, "qwen2.vocab_size": None}
    assert_same(converted(model, left_out), model)


def test_the_name_mistral_changes_nothing(converted):
    """transformers takes a Llama of this name for another architecture, with a window."""
    assert_same(converted(make_model(), {"general.name": "mistral"}), make_model())


def test_llama3_scaling_of_positions(converted):
    """By hand: wavelengths below 8192 / 4 stay, those above 8192 are divided by the factor, between them in part."""
    factor, head, theta = 32.0, 16, 500000.0
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head, 2) / head)
    part = (8192 / wavelengths - 1) / (4 - 1)
    between = 1 / ((1 - part) / factor + part)
    divisors = np.where(wavelengths < 2048, 1, np.where(wavelengths > 8192, factor, between)).astype(np.float32)
    assert ((divisors > 1) & (divisors < factor)).any()
    rope = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = make_model(rope_parameters=rope)
    directory = converted(model, tensors={"rope_freqs.weight": divisors})
    assert AutoConfig.from_pretrained(directory).rope_parameters == rope
    assert_same(directory, model)


def test_a_padded_embedding(converted):
    """More rows than tokens, as many models have."""
    model = make_model(vocab_size=384)
    directory = converted(model)
    assert AutoConfig.from_pretrained(directory).vocab_size == 384
    assert_same(directory, model)


@pytest.mark.parametrize(("quantisation", "steps"), [("Q8_0", 127), ("Q4_1", 15)])
def test_quantised_weights_are_off_by_half_a_step_at_most(converted, quantisation, steps):
    """A block of 32 weights has one step: Q8_0 its largest absolute value / 127, Q4_1 its range / 15, kept as fp16."""
    model = make_model("qwen2", tie_word_embeddings=True)  # the file holds its rows in their own order
    found = load_file(converted(model, quantisation=quantisation) / "model.safetensors")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(found[name], parameter)
            continue
        blocks = parameter.detach().reshape(-1, 32)
        spread = blocks.abs().amax(1) if quantisation == "Q8_0" else blocks.amax(1) - blocks.amin(1)
        error = (found[name].reshape(-1, 32) - blocks).abs().amax(1)
        fp16 = blocks.abs().amax(1) * 2**-10
        assert (error <= spread / steps * 0.5 + fp16).all(), name
        assert error.max() > 1e-4  # it was quantised


@pytest.mark.parametrize("quantisation", ["F16", "BF16"])
def test_half_precision_is_kept_exactly(converted, quantisation):
    model = make_model("qwen2")
    kind = torch.float16 if quantisation == "F16" else torch.bfloat16
    found = load_file(converted(model, quantisation=quantisation) / "model.safetensors")
    for name, parameter in model.named_parameters():
        expected = parameter if parameter.dim() == 1 else parameter.detach().to(kind).float()
        assert torch.equal(found[name], expected)


def test_the_directory_is_an_ordinary_one(converted, tmp_path):
    """It states no quantisation, holds fp32 safetensors, and loads where there is no gguf."""
    directory = converted(make_model(), quantisation="Q8_0")
    assert sorted(file.name for file in directory.iterdir()) == [
        *("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    config = json.loads((directory / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    assert {weight.dtype for weight in load_file(directory / "model.safetensors").values()} == {torch.float32}
    script = (
        "import sys; sys.modules['gguf'] = None\n"
        "from pathlib import Path; from components.policy.model import load\n"
        "from components.config.sections import PolicyConfig\n"
        f"print(load(Path({str(directory)!r}), PolicyConfig()).eos_ids)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ends = make_tokenizer(CHAT).convert_tokens_to_ids([*CHAT.eos])  # the file's EOS, and what ends the template's turns
    assert done.stdout.strip() == str(tuple(sorted(ends)))


def test_weights_that_are_no_numbers(converted):
    """As in a file that was damaged where no length shows it."""
    with pytest.raises(
        PolicyError, match=r"holds NaN or infinite numbers in 1 weights, model\.layers\.1\.mlp\.up_proj"
    ):
        converted(make_model(), tensors={"blk.1.ffn_up.weight": np.full((96, 64), np.nan, np.float32)})


def test_shared_weights_train_as_one(converted):
    """A tied head stays tied when the directory is loaded again."""
    directory = converted(make_model(tie_word_embeddings=True))
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
