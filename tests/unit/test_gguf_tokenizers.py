"""GGUF files to directories: tokens, their roles, chat templates and what ends a response are those of the file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.model import load
from support.models.families import FAMILIES, LINES, make_tokenizer
from support.models.ggufs import TEXTS, byte_level, directory_of, prompt

SPLIT = r"\p{L}+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+"
BEFORE = {  # how each name of a file cuts text, as the original tokenizers state it
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
                ),
                "isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.fixture
def stored(tmp_path):
    """`stored(fields, architecture, …)`: the directory that comes of a file with such a tokenizer."""
    return partial(directory_of, tmp_path)


@pytest.mark.parametrize("family", ["llama3", "qwen2.5", "gemma2", "gpt2"])
def test_a_familys_prompt_and_its_end(stored, family):
    """Ids of the prompt, ends of the response and decoded text as the family's own tokenizer gives them."""
    chat = FAMILIES[family]
    original = make_tokenizer(chat)
    ends = [original.convert_tokens_to_ids(token) for token in chat.eos]
    fields = byte_level(original, pre="qwen2" if family == "qwen2.5" else "gpt-2", eos_token_id=ends[0])
    if len(ends) > 1:
        fields["tokenizer.ggml.eot_token_id"] = ends[1]
    architecture = {"llama3": "llama", "qwen2.5": "qwen2"}.get(family, family)
    directory = stored(fields, architecture, prompt_format=chat.prompt_format)
    policy = load(directory, PolicyConfig(prompt_format=chat.prompt_format))
    assert policy.encode(prompt()) == original(chat.shown, add_special_tokens=False)["input_ids"]
    assert policy.eos_ids == tuple(sorted(ends))
    assert policy.tokenizer.bos_token == chat.roles.get("bos_token")
    assert policy.tokenizer.pad_token == chat.roles.get("pad_token")
    assert policy.tokenizer.chat_template == chat.template
    ids = [*original("Hi there", add_special_tokens=False)["input_ids"], ends[0]]
    assert policy.decode([ids]) == ["Hi there"]


@pytest.mark.parametrize("pre", BEFORE)
def test_text_is_cut_as_the_file_says(stored, pre):
    """Merges across what is cut exist in the vocabulary, so that another cut gives other tokens."""
    backend = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*LINES, "12 123 1234 56 567 it's don't", *["1234 it's  two"] * 9], trainer)
    backend.pre_tokenizer, backend.decoder = BEFORE[pre], decoders.ByteLevel()
    original = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", chat_template="{{ messages }}")
    found = AutoTokenizer.from_pretrained(stored(byte_level(original, pre=pre)))
    for text in TEXTS:
        assert found(text)["input_ids"] == original(text)["input_ids"], text
        assert found.decode(found(text)["input_ids"]) == text
    other = BEFORE["smollm" if pre != "smollm" else "gpt-2"]
    backend.pre_tokenizer = other
    changed = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert any(changed(text)["input_ids"] != found(text)["input_ids"] for text in TEXTS)


def test_words_taken_whole_before_any_merge(stored):
    """Llama 3's tokenizer: a word of the vocabulary that no merge makes is one token all the same."""
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]), pre="llama-bpe")
    merges, tokens = fields["tokenizer.ggml.merges"], fields["tokenizer.ggml.tokens"]
    assert merges.pop().replace(" ", "") == tokens[319]
    tokens[319] = "zebra"
    found = AutoTokenizer.from_pretrained(stored(fields))
    assert found("zebra", add_special_tokens=False)["input_ids"] == [319]


@pytest.mark.thorough(but=["gpt-2-True-True", "llama-bpe-None-True", "deepseek-r1-qwen-True-True"])
@pytest.mark.parametrize(
    ("pre", "stated", "begins"),
    [
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("gpt-2", False, False),
        ("llama-bpe", None, True),  # what llama.cpp does unless the file says otherwise
        ("llama-bpe", False, False),
        ("deepseek-r1-qwen", True, True),
    ],
)
def test_bos_before_a_text_is_as_stated(stored, pre, stated, begins):
    architecture = "qwen2" if pre == "deepseek-r1-qwen" else "llama"
    family = replace(FAMILIES["llama3"], template=None)
    fields = byte_level(make_tokenizer(family), pre=pre, add_bos_token=stated)
    config = PolicyConfig(prompt_format="{prompt}")
    policy = load(stored(fields, architecture, prompt_format="{prompt}"), config)
    assert (policy.encode(prompt())[0] == policy.tokenizer.bos_token_id) is begins
    assert policy.tokenizer("Hi")["input_ids"] == policy.encode(prompt("Hi"))


def test_eos_behind_a_text_is_as_stated(stored):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]), add_bos_token=True, add_eos_token=True)
    tokenizer = AutoTokenizer.from_pretrained(stored(fields))
    begin, *_, end = tokenizer("Hi")["input_ids"]
    assert (begin, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_every_end_of_a_response_is_kept(stored):
    """End of text, of turn and of message; a tokenizer has room for the first alone."""
    original = make_tokenizer(FAMILIES["llama3"])
    fields = byte_level(original, eot_token_id=4, eom_token_id=3)
    directory = stored(fields)
    assert GenerationConfig.from_pretrained(directory).eos_token_id == [original.eos_token_id, 3, 4]
    assert load(directory, PolicyConfig()).eos_ids == (original.eos_token_id, 3, 4)


def test_special_tokens_in_any_script(stored):
    """DeepSeek's have characters outside the alphabet that bytes are written in."""
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]))
    tokens = fields["tokenizer.ggml.tokens"]
    tokens[0], tokens[2], tokens[3] = "<｜begin▁of▁sentence｜>", "<｜User｜>", "<two words>"
    fields["tokenizer.chat_template"] = "{{ bos_token }}<｜User｜>{{ messages[0]['content'] }}<two words>"
    policy = load(stored(fields), PolicyConfig())
    ids = policy.encode(prompt())
    assert (ids[:2], ids[-1], policy.decode([ids])) == ([0, 2], 3, ["Hi there"])


def test_added_words_are_whole_and_shown(stored):
    """Type 4, such as <think>: never cut, and a part of the text."""
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]))
    fields["tokenizer.ggml.tokens"][2] = "<think>"
    fields["tokenizer.ggml.token_type"][2] = 4
    tokenizer = AutoTokenizer.from_pretrained(stored(fields))
    ids = tokenizer("Hi<think>there", add_special_tokens=False)["input_ids"]
    assert 2 in ids
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "Hi<think>there"


def test_no_token_is_added(stored):
    """transformers' own reading of a file adds <|endoftext|> to a vocabulary without it, beyond the embedding."""
    fields = byte_level(make_tokenizer(FAMILIES["llama3"]))
    assert "<|endoftext|>" not in fields["tokenizer.ggml.tokens"]
    assert len(AutoTokenizer.from_pretrained(stored(fields))) == 320


def test_named_chat_templates_are_kept(stored):
    fields = byte_level(make_tokenizer(FAMILIES["llama3"])) | {"tokenizer.chat_template.tool_use": "{{ tools }}"}
    directory = stored(fields)
    policy = load(directory, PolicyConfig())
    assert policy.tokenizer.chat_template == {"default": FAMILIES["llama3"].template, "tool_use": "{{ tools }}"}
    assert policy.tokenizer.decode(policy.encode(prompt())) == FAMILIES["llama3"].shown


def test_a_base_model_needs_a_prompt_format(stored):
    fields = byte_level(make_tokenizer(replace(FAMILIES["llama3"], template=None)))
    with pytest.raises(PolicyError, match=r"^policy\.prompt_format: is required"):
        stored(fields)


def test_composed_forms_of_qwen2(stored):
    """é in two characters is read as é in one, as by the original tokenizer."""
    original = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer = AutoTokenizer.from_pretrained(stored(byte_level(original, pre="qwen2"), "qwen2"))
    assert tokenizer("cafe\u0301")["input_ids"] == tokenizer("caf\u00e9")["input_ids"]
    original.backend_tokenizer.normalizer = normalizers.NFC()
    assert tokenizer("cafe\u0301")["input_ids"] == original("cafe\u0301")["input_ids"]
