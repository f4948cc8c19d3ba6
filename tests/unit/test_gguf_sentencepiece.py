"""GGUF files with a SentencePiece vocabulary: pieces, scores and bytes give the original's tokens."""

from __future__ import annotations

from functools import partial

import pytest

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.model import load
from support.models.families import LINES
from support.models.ggufs import TEXTS, directory_of, prompt

pytestmark = pytest.mark.thorough


@pytest.fixture
def stored(tmp_path):
    """`stored(fields, architecture, …)`: the directory that comes of a file with such a tokenizer."""
    return partial(directory_of, tmp_path)


def pieces(path, *, spaced):
    """A sentencepiece model of Llama's kind."""
    spm = pytest.importorskip("sentencepiece", reason="needs sentencepiece: pip install -r requirements-vllm-cpu.txt")
    (path / "lines.txt").write_text("\n".join([*LINES, "two  spaces   three", "12 123 1234"] * 20))
    spm.SentencePieceTrainer.train(
        input=str(path / "lines.txt"),
        model_prefix=str(path / "spm"),
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=spaced,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return spm.SentencePieceProcessor(model_file=str(path / "spm.model"))


def of_pieces(processor, **more):
    """What a file states of a sentencepiece model."""
    ids = range(processor.vocab_size())
    kinds = [
        2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1
        for i in ids
    ]
    fields = {
        "model": "llama",
        "tokens": [processor.id_to_piece(i) for i in ids],
        "scores": [processor.get_score(i) for i in ids],
        "token_type": kinds,
        "bos_token_id": processor.bos_id(),
        "eos_token_id": processor.eos_id(),
        "unknown_token_id": processor.unk_id(),
        **more,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


@pytest.mark.parametrize("spaced", [True, False])
def test_sentencepiece(tmp_path, stored, spaced):
    """Ids and texts as sentencepiece gives them, with BOS before a text, which llama.cpp puts there."""
    processor = pieces(tmp_path, spaced=spaced)
    fields = of_pieces(processor, **({} if spaced else {"add_space_prefix": False}))
    config = PolicyConfig(prompt_format="{prompt}")
    policy = load(stored(fields, vocab_size=340, prompt_format="{prompt}"), config)
    for text in TEXTS[:3]:
        ids = processor.encode(text)
        assert policy.encode(prompt(text)) == [processor.bos_id(), *ids], text
        assert policy.decode([[*ids, processor.eos_id()]]) == [processor.decode(ids)] == [text]


def test_a_space_goes_before_text_behind_a_special_token(tmp_path, stored):
    processor = pieces(tmp_path, spaced=True)
    template = {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0]['content'] }}"}
    policy = load(stored(of_pieces(processor) | template, vocab_size=340), PolicyConfig())
    assert policy.encode(prompt("the sum")) == [processor.bos_id(), *processor.encode("the sum")]


def test_gemmas_own_tokenizer(tmp_path, stored):
    with pytest.raises(PolicyError, match="has Gemma's tokenizer, whose order of merges"):
        stored(of_pieces(pieces(tmp_path, spaced=False)), "gemma2", vocab_size=340)
