"""Tokenizers in GGUF files that are refused, with the remedy: the original one beside the file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from components.config.errors import PolicyError
from support.models.families import FAMILIES, make_tokenizer
from support.models.ggufs import byte_level, directory_of

pytestmark = pytest.mark.thorough


@pytest.fixture
def stored(tmp_path):
    """`stored(fields, architecture, …)`: the directory that comes of a file with such a tokenizer."""
    return partial(directory_of, tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pre": None}, r"tokenizer\.ggml\.pre = None"),
        ({"pre": "default"}, r"tokenizer\.ggml\.pre = 'default'"),
        ({"model": "bert"}, "of the kind 'bert'"),
        ({"model": "no_vocab", "tokens": None, "token_type": None}, "of the kind 'no_vocab'"),
        ({"merges": None}, "without merges"),
        ({"model": "llama"}, "without scores"),
        ({"add_bos_token": True, "bos_token_id": None}, "begin with BOS, and no BOS"),
        ({"eos_token_id": None}, "names no EOS token"),
    ],
)
def test_refused(stored, fields, reason):
    changed = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    with pytest.raises(PolicyError, match=rf"^policy\.model: .*tiny\.gguf .*{reason}.*Put its original tokenizer"):
        stored(byte_level(make_tokenizer(FAMILIES["llama3"])) | changed)


@pytest.mark.parametrize("kind", ["token_type", "scores"])
def test_lists_of_several_lengths(stored, kind):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"])) | {f"tokenizer.ggml.{kind}": [1] * 319}
    with pytest.raises(PolicyError, match=f"lists 320 tokens and 319 {kind}"):
        stored(fields)


@pytest.mark.parametrize("template", ["{% for %}", "{{ messages[0]['content'] ", "{{ raise_exception('never') }}"])
def test_a_chat_template_that_writes_nothing(stored, template):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"])) | {"tokenizer.chat_template": template}
    with pytest.raises(PolicyError, match="has a chat template that writes no prompt"):
        stored(fields)


def test_chat_templates_without_a_default(stored):
    fields = byte_level(make_tokenizer(replace(FAMILIES["llama3"], template=None)))
    with pytest.raises(PolicyError, match="has chat templates named rag, and none to use as it is"):
        stored(fields | {"tokenizer.chat_template.rag": "{{ documents }}"})


@pytest.mark.parametrize("role", ["bos", "eos", "eot", "padding"])
def test_the_id_of_no_token(stored, role):
    """Beyond the embedding, or beyond the vocabulary alone."""
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]))
    with pytest.raises(PolicyError, match=rf"states tokenizer\.ggml\.{role}_token_id 320, and embeds 320 tokens"):
        stored(fields | {f"tokenizer.ggml.{role}_token_id": 320})


def test_the_id_of_a_row_without_a_token(stored):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]), eos_token_id=320)
    with pytest.raises(PolicyError, match="states eos_token_id 320, which is no token"):
        stored(fields, vocab_size=384)


def test_a_spelling_that_two_tokens_share(stored):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]))
    fields["tokenizer.ggml.tokens"][3] = fields["tokenizer.ggml.tokens"][2]
    with pytest.raises(PolicyError, match="calls token 2"):
        stored(fields)


@pytest.mark.parametrize("merge", ["a", "a b c", "a zebra", "q q"])
def test_a_merge_that_makes_no_token(stored, merge):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]))
    fields["tokenizer.ggml.merges"].append(merge)
    with pytest.raises(PolicyError, match="of which its vocabulary lacks a part"):
        stored(fields)


def test_a_cut_that_transformers_would_replace(stored):
    """It reads every Qwen2's tokenizer as Qwen2's own."""
    with pytest.raises(PolicyError, match="replaces by a Qwen2Tokenizer"):
        stored(byte_level(make_tokenizer(FAMILIES["qwen2.5"]), pre="gpt-2"), "qwen2")
