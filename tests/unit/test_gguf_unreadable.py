"""GGUF files that cannot be read or hold something else: what is wrong, where, and how to fix it."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.gguf_files import convert
from support.models.families import FAMILIES, make_tokenizer
from support.models.ggufs import byte_level, gguf, make_model, refusal, write

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level(make_tokenizer(FAMILIES["llama3"]))


@pytest.fixture
def refused(tmp_path, tokenizer):
    """`refused(fields, …)`: the message with which a file is refused."""

    def make(fields=(), *, name="tiny.gguf", architecture="llama", **options):
        file = write(tmp_path / name, make_model(architecture), {**tokenizer, **dict(fields)}, **options)
        return refusal(file)

    return make


@pytest.mark.parametrize(
    ("begin", "hint"),
    [
        (b"", "Fetch it again"),
        (b"PK\x03\x04 a zip", "Fetch it again"),
        (b"<!DOCTYPE html>", "Fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    ],
)
def test_another_format_with_that_ending(tmp_path, begin, hint):
    file = tmp_path / "model.gguf"
    file.write_bytes(begin)
    message = refusal(file)
    assert re.search(r"is no GGUF file, it begins with b'.{0,16}'\.", message)
    assert hint in message


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.05, 0.3, 0.999])
def test_a_truncated_file(tmp_path, tokenizer, share):
    """In its first numbers, its metadata, its list of tensors, a tensor, and the last of them."""
    file = write(tmp_path / "whole.gguf", make_model(), tokenizer)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[: max(6, int(share * file.stat().st_size))])
    message = refusal(cut)
    assert "cannot be read" in message
    assert "Fetch it again" in message


def test_a_newer_version(tmp_path, tokenizer):
    file = write(tmp_path / "tiny.gguf", make_model(), tokenizer)
    content = bytearray(file.read_bytes())
    content[4] = 9
    file.write_bytes(content)
    assert "version 9" in refusal(file)


def test_the_other_byte_order(tmp_path):
    file = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(file, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "is written in the other byte order" in refusal(file)


def test_without_the_package(tmp_path, tokenizer, monkeypatch):
    file = write(tmp_path / "tiny.gguf", make_model(), tokenizer)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(PolicyError, match=r"^policy\.model: to read .*, the package gguf is needed: pip install gguf$"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file)))


# Files of another kind


def test_a_part_of_a_split_model(refused):
    assert "llama-gguf-split --merge" in refused({"split.count": 3})
    assert "llama-gguf-split --merge" in refused(name="tiny-00001-of-00003.gguf")


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_no_model(refused, kind):
    assert f"of type '{kind}'" in refused({"general.type": kind})


def test_another_architecture(refused):
    message = refused({"general.architecture": "rwkv7"})
    assert "'rwkv7'; those that can be converted are llama, qwen2, qwen3, gemma2, gpt2" in message


def test_an_architecture_that_is_not_named(tmp_path, tokenizer):
    file = write(tmp_path / "tiny.gguf", make_model(), tokenizer)
    file.write_bytes(file.read_bytes().replace(b"general.architecture", b"general.architexture"))
    assert "architecture None" in refusal(file)


def test_a_quantisation_that_cannot_be_undone(tmp_path, tokenizer):
    """Q8_K has no dequantiser: blocks of 256 weights in 292 bytes."""
    file = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for name in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"):
        writer.add_uint32(f"llama.{name}", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    for name in ("token_embd.weight", "blk.0.ffn_up.weight"):
        writer.add_tensor(name, np.zeros((2, 292), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "of the type Q8_K, which the package gguf cannot dequantise" in refusal(file)
