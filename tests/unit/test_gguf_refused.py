"""GGUF files that are refused, before any weight is touched: what is wrong, where, and how to fix it."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from components.policy.gguf_files import room
from support.models.families import FAMILIES, make_tokenizer
from support.models.ggufs import byte_level, make_model, refusal, write

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level(make_tokenizer(FAMILIES["llama3"]))


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """Whatever is refused here is refused before the loader runs."""
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *args, **options: pytest.fail("weights read"))


@pytest.fixture
def refused(tmp_path, tokenizer):
    """`refused(fields, …)`: the message with which a file is refused."""

    def make(fields=(), *, name="tiny.gguf", architecture="llama", **options):
        file = write(tmp_path / name, make_model(architecture), {**tokenizer, **dict(fields)}, **options)
        return refusal(file)

    return make


@pytest.mark.parametrize(
    "name",
    [
        *("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"),
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_a_shape_that_is_not_stated(refused, name):
    assert f"does not state llama.{name}." in refused({f"llama.{name}": None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope.scaling.type", "yarn"),
        ("rope.scaling.type", "linear"),
        ("rope.scaling.factor", 4.0),
        ("rope.scale_linear", 2.0),
        ("expert_count", 8),
        ("attention.sliding_window", 4096),
        ("attention.causal", False),
        ("logit_scale", 0.5),
        ("feed_forward_length", [96, 96]),
        ("something.new", 1),
    ],
)
def test_a_setting_that_has_no_place(refused, name, value):
    message = refused({f"llama.{name}": value})
    assert f"states llama.{name} = {value}" in message
    assert "Use the model's Hugging Face directory" in message


@pytest.mark.parametrize("name", ["attention.key_length", "attention.value_length", "rope.dimension_count"])
def test_heads_of_several_sizes(refused, name):
    message = refused({f"llama.{name}": 8})
    if name == "attention.key_length":  # all that states it, against the tensors
        assert "holds blk.0.attn_q.weight as (64, 64), and its own settings give (32, 64)" in message
    else:
        assert f"has heads of 16 numbers and states llama.{name} = 8: parts of heads" in message


@pytest.mark.parametrize("divisors", [np.linspace(1, 4, 8), np.ones(3)])
def test_positions_scaled_in_another_way(refused, divisors):
    message = refused(tensors={"rope_freqs.weight": divisors.astype(np.float32)})
    assert "scales positions (rope_freqs.weight) unlike Llama 3" in message


@pytest.mark.parametrize(
    "fields", [{"llama.vocab_size": 300}, {"tokenizer.ggml.tokens": ["a"] * 321, "tokenizer.ggml.token_type": None}]
)
def test_vocabularies_of_several_sizes(refused, fields):
    assert "embeds 320 tokens" in refused(fields)


@pytest.mark.parametrize(
    "tensor", ["output_norm.weight", "blk.1.ffn_up.weight", "blk.0.attn_k.weight", "token_embd.weight"]
)
def test_a_missing_tensor(refused, tensor):
    """The loader would fill it with random numbers."""
    message = refused(tensors={tensor: None})
    assert re.search(rf"(lacks the tensor|no) {re.escape(tensor)}", message)


@pytest.mark.parametrize(
    "tensor", ["blk.0.attn_q.bias", "blk.0.attn_sub_norm.weight", "blk.0.ffn_gate_exps.weight", "v.patch_embd.weight"]
)
def test_a_tensor_too_many(refused, tensor):
    """The loader would drop it."""
    array = np.zeros(64, np.float32)
    assert f"holds the tensor {tensor}, which a LlamaForCausalLM does not have" in refused(tensors={tensor: array})


def test_a_tensor_of_another_shape(refused):
    message = refused(tensors={"blk.0.ffn_up.weight": np.zeros((80, 64), np.float32)})
    assert "holds blk.0.ffn_up.weight as (80, 64), and its own settings give (96, 64)" in message


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("attention.head_count", 0, "does not state llama.attention.head_count"),
        ("attention.head_count", 5, "no config can be made"),  # of a hidden size of 64
        ("attention.head_count", "four", "states llama.attention.head_count = four"),
        ("context_length", 2.5, "no config can be made"),
        ("attention.layer_norm_rms_epsilon", "small", "states llama.attention.layer_norm_rms_epsilon = small"),
        ("block_count", 3, "states 3 layers and holds tensors of 2"),
        ("block_count", 2**31, "states 2147483648 layers and holds tensors of 2"),
    ],
)
def test_settings_that_make_no_sense(refused, name, value, reason):
    assert reason in refused({f"llama.{name}": value})


# Room


def test_too_little_memory(refused, monkeypatch, tmp_path):
    """All tensors as fp32 and three times the largest, the embedding or the head of 320 x 64, are needed."""
    elements = 2 * 320 * 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64) + 64
    needed = 4 * (elements + 3 * 320 * 64)
    monkeypatch.setattr(room, "available_memory", lambda: needed - 1)
    message = refused()
    assert "0.0 GB of memory as fp32 weights" in message
    assert "resources.start" in message
    monkeypatch.setattr(room, "available_memory", lambda: needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 4 * elements - 1))
    shutil.rmtree(tmp_path / "policy")
    message = refused()
    assert "GB of disk as fp32 weights" in message
    assert "Point TMPDIR to a larger disk" in message


@pytest.mark.parametrize(
    ("limit", "files"),
    [
        (None, {}),
        (None, {"memory.max": "max\n"}),
        (650, {"memory.max": "1000\n", "memory.current": "400\n", "memory.stat": "anon 5\ninactive_file 50\n"}),
        (
            650,
            {
                "memory/memory.limit_in_bytes": "1000\n",
                "memory/memory.usage_in_bytes": "400\n",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 50\n",
            },
        ),
    ],
)
def test_available_memory_is_the_least_of_machine_and_container(tmp_path, monkeypatch, limit, files):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9 kB\nMemAvailable:       2 kB\nHugePages_Total:       0\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    monkeypatch.setattr(room, "MEMINFO", meminfo)
    assert room.available_memory() == (2048 if limit is None else limit)
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "none")
    assert room.available_memory() == limit


def test_this_machines_memory():
    free = room.available_memory()
    assert free is not None
    assert 1e8 < free < 1e14
