"""Tokenizers that lie beside a GGUF file: taken where its folder is named, and compared with what the file states."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.gguf_files import convert
from components.policy.model import load
from support.models.families import FAMILIES, make_tokenizer
from support.models.ggufs import byte_level, make_model, prompt, write

pytestmark = pytest.mark.thorough


@pytest.fixture
def beside(tmp_path):
    """`beside(file_fields, original)`: a folder with a GGUF file and a tokenizer."""

    def make(fields, original, **files):
        folder = tmp_path / "model"
        original.save_pretrained(folder)
        for name, values in files.items():
            (folder / f"{name}.json").write_text(json.dumps(values))
        return write(folder / "tiny.gguf", make_model(), fields)

    return make


def test_a_tokenizer_beside_the_file_is_taken(beside, tmp_path):
    """And its chat template; a file named itself keeps the one inside it."""
    original = make_tokenizer(FAMILIES["llama3"])
    inside = byte_level(original, pre="unheard-of") | {"tokenizer.chat_template": "{{ messages }}"}
    file = beside(inside, original, config={"model_type": "t5"}, generation_config={"eos_token_id": [4]})
    directory = convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))
    policy = load(directory, PolicyConfig())
    assert policy.tokenizer.decode(policy.encode(prompt())) == FAMILIES["llama3"].shown
    assert (policy.eos_ids, policy.model.config.model_type) == ((original.eos_token_id, 4), "llama")
    with pytest.raises(PolicyError, match=r"tokenizer\.ggml\.pre = 'unheard-of'.*Put its original tokenizer"):
        convert(file, tmp_path / "other", PolicyConfig(model=str(file)))


def test_a_tokenizer_beside_a_file_without_one(beside, tmp_path):
    original = make_tokenizer(FAMILIES["llama3"])
    file = beside({}, original)
    policy = load(convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent))), PolicyConfig())
    assert policy.tokenizer("Hi there")["input_ids"] == original("Hi there")["input_ids"]


def test_the_files_template_where_the_tokenizer_beside_has_none(beside, tmp_path):
    original = make_tokenizer(replace(FAMILIES["llama3"], template=None))
    file = beside(byte_level(make_tokenizer(FAMILIES["llama3"])), original)
    directory = convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))
    policy = load(directory, PolicyConfig())
    assert policy.tokenizer.decode(policy.encode(prompt())) == FAMILIES["llama3"].shown


def test_another_models_tokenizer_beside_the_file(beside, tmp_path):
    file = beside(byte_level(make_tokenizer(FAMILIES["llama3"])), make_tokenizer(FAMILIES["gemma2"]))
    with pytest.raises(PolicyError, match=r"calls token 0 '<\|begin_of_text\|>', and its tokenizer '<bos>'"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))


def test_a_tokenizer_that_cuts_texts_otherwise(beside, tmp_path):
    """The same tokens, whose merges stand in another order."""
    original = make_tokenizer(FAMILIES["llama3"])
    fields = byte_level(original)
    merges = fields["tokenizer.ggml.merges"]
    file = beside(fields | {"tokenizer.ggml.merges": merges[::-1]}, original)
    with pytest.raises(PolicyError, match=r"cuts a text into \d+ tokens, the tokenizer beside it into others\."):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))


def test_another_bos_beside_the_file(beside, tmp_path):
    original = make_tokenizer(FAMILIES["llama3"])
    file = beside(byte_level(original, bos_token_id=3), original)
    with pytest.raises(PolicyError, match="states BOS 3, and the tokenizer beside it 0"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))


def test_half_a_tokenizer_beside_the_file(beside, tmp_path):
    original = make_tokenizer(FAMILIES["llama3"])
    file = beside(byte_level(original), original)
    (file.parent / "tokenizer.json").unlink()
    with pytest.raises(PolicyError, match=r"holds tokenizer_config\.json .* and no vocabulary"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))


@pytest.mark.parametrize("stated", [True, False])
def test_another_beginning_of_texts_beside_the_file(beside, tmp_path, stated):
    original = make_tokenizer(replace(FAMILIES["llama3"], begins_with_bos=not stated))
    file = beside(byte_level(original, add_bos_token=stated), original)
    with pytest.raises(PolicyError, match=f"states add_bos_token {stated}, and the tokenizer beside it {not stated}"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))


def test_an_adapter_beside_the_file(beside, tmp_path):
    original = make_tokenizer(FAMILIES["llama3"])
    file = beside(byte_level(original), original, adapter_config={})
    with pytest.raises(PolicyError, match="holds an adapter"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))


def test_code_beside_the_file(beside, tmp_path):
    original = make_tokenizer(FAMILIES["llama3"])
    file = beside(byte_level(original), original)
    config = json.loads((file.parent / "tokenizer_config.json").read_text()) | {
        "auto_map": {"AutoTokenizer": ["a.B", None]}
    }
    (file.parent / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(PolicyError, match="names code of its own"):
        convert(file, tmp_path / "policy", PolicyConfig(model=str(file.parent)))
