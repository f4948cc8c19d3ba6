"""Policies: prompts to token ids, directories in and out, and what is refused."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy import model as policies
from components.policy.model import check_lengths, load
from support.models.policies import BOS, CHAT, CHAT_IDS, EOS, PAD, UNK, USER, prompt
from support.models.words import edit


@pytest.fixture
def folder(tmp_path, make_model, make_tokenizer):
    """A Llama's directory with a chat template."""
    directory = tmp_path / "model"
    make_model().save_pretrained(directory)
    make_tokenizer(CHAT).save_pretrained(directory)
    return directory


@pytest.fixture
def retokenize(folder, make_tokenizer):
    """Gives the directory another tokenizer."""

    def write(*args, **kwargs):
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        make_tokenizer(*args, **kwargs).save_pretrained(folder)
        return folder

    return write


def formatted(prompt_format="{prompt}"):
    return PolicyConfig(prompt_format=prompt_format)


@pytest.mark.parametrize("around", [None, "<s> $A", "<s> $A </s>"])
def test_a_chat_template_is_all_there_is(retokenize, around):
    """The template holds BOS already, and what the tokenizer would put around a text stays away."""
    policy = load(retokenize(CHAT, around=around), PolicyConfig())
    assert policy.encode(prompt()) == CHAT_IDS


def test_a_template_without_bos_gets_none(retokenize):
    policy = load(retokenize("{{ messages[0]['content'] }}", around="<s> $A"), PolicyConfig())
    assert policy.encode(prompt()) == [7, 8]


def test_several_turns(folder):
    turns = (("user", "w9"), ("assistant", "w10"))
    expected = [BOS, USER, 9, EOS, USER, 10, EOS, USER, 7, 8, EOS, 6]
    assert load(folder, PolicyConfig()).encode(prompt("w7 w8", *turns)) == expected


def test_a_turn_that_the_template_refuses(folder):
    with pytest.raises(PolicyError, match=r"prompt 'p'.* refuses its turns \(system, user\): no system turn"):
        load(folder, PolicyConfig()).encode(prompt("w7", ("system", "w9")))


def test_a_system_turn_that_the_template_takes(retokenize):
    template = "{% for m in messages %}{% if m['role'] == 'system' %}w20 {% endif %}{{ m['content'] }} {% endfor %}"
    assert load(retokenize(template), PolicyConfig()).encode(prompt("w7", ("system", "w9"))) == [20, 9, 7]


@pytest.mark.parametrize(
    ("around", "prompt_format", "expected"),
    [
        (None, "{prompt}", [7, 8]),
        (None, "<s> user: {prompt} w9", [BOS, USER, 7, 8, 9]),
        ("<s> $A", "{prompt}", [BOS, 7, 8]),
        ("<s> $A </s>", "{prompt} w9", [BOS, 7, 8, 9]),  # no EOS before the response
        ("$A </s>", "{prompt}", [7, 8]),
        ("<s> $A", "<s> {prompt}", [BOS, 7, 8]),  # BOS once, from either
        ("<s> $A </s>", "{prompt} </s>", [BOS, 7, 8, EOS]),  # what the user wrote stays
    ],
)
def test_prompt_format(retokenize, around, prompt_format, expected):
    policy = load(retokenize(around=around), formatted(prompt_format))
    assert policy.encode(prompt()) == expected


def test_braces_in_a_prompt_stay(retokenize):
    policy = load(retokenize(), formatted("w9 {prompt}"))
    assert policy.encode(prompt("w7 {x} w8")) == [9, 7, UNK, 8]


def test_several_messages_need_a_template(retokenize):
    policy = load(retokenize(), formatted())
    with pytest.raises(PolicyError, match=r"prompt 'p': 2 messages need a chat template"):
        policy.encode(prompt("w7", ("system", "w9")))


def test_decode_removes_special_tokens_and_nothing_else(retokenize, folder):
    edit(retokenize(CHAT) / "tokenizer_config.json", clean_up_tokenization_spaces=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["."] = vocabulary.pop("w59")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(folder, PolicyConfig()).decode([[7, 59, 8, EOS], [], [BOS, PAD]]) == ["w7 . w8", "", ""]


def test_load_gives_fp32_weights_in_eval_mode(folder, make_model):
    make_model().to(torch.bfloat16).save_pretrained(folder)
    policy = load(folder, PolicyConfig(), precision="bf16")
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert not policy.model.training
    assert (policy.precision, policy.folder, policy.pad_id) == ("bf16", folder, PAD)


def test_eos_ids_come_from_generation_config_and_tokenizer(folder):
    edit(folder / "generation_config.json", eos_token_id=[9, 11])
    assert load(folder, PolicyConfig()).eos_ids == (EOS, 9, 11)


def test_pad_falls_back_to_eos(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load(folder, PolicyConfig()).pad_id == EOS


def test_no_eos_anywhere(retokenize, folder):
    retokenize("{{ messages[0]['content'] }}", eos_token=None)
    for name in ("config.json", "generation_config.json"):
        edit(folder / name, eos_token_id=None)
    with pytest.raises(PolicyError, match=r"names no EOS token.*Set eos_token_id in generation_config\.json"):
        load(folder, PolicyConfig())


def test_no_template_and_no_format(retokenize):
    with pytest.raises(PolicyError, match=r"policy\.prompt_format: is required"):
        load(retokenize(), PolicyConfig())


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_is_refused_unless_allowed(folder, file):
    edit(folder / file, auto_map={"AutoModelForCausalLM": "modeling.Model", "AutoTokenizer": ["modeling.Words", None]})
    (folder / "modeling.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(PolicyError, match=rf"{file} names code of its own.*policy\.trust_remote_code: true"):
        load(folder, PolicyConfig())


def test_code_runs_when_allowed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", sys.path[:])
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    (folder / "modeling.py").write_text(
        "from transformers import LlamaForCausalLM\nclass Mine(LlamaForCausalLM): pass\n"
    )
    assert type(load(folder, PolicyConfig(trust_remote_code=True)).model).__name__ == "Mine"


def lengths(policy, *texts, tokens=10, new=8):
    """Templates add four tokens: BOS, `user:`, EOS and `w6`."""
    prompts = [prompt(text, id=f"p{i}") for i, text in enumerate(texts)]
    check_lengths(policy, prompts, max_prompt_tokens=tokens, max_new_tokens=new)


def test_prompts_that_fit(folder):
    lengths(load(folder, PolicyConfig()), "w7 w7", "w7 w7 w7 w7 w7 w7", new=54)


def test_prompts_that_are_too_long(folder):
    message = r"policy\.max_prompt_tokens: 2 of 3 prompts are longer than 10 tokens; the longest, 'p2', has 12"
    with pytest.raises(PolicyError, match=message):
        lengths(load(folder, PolicyConfig()), "w7 " * 7, "w7", "w7 " * 8)


def test_responses_beyond_the_models_positions(folder):
    with pytest.raises(PolicyError, match=r"\('p0', 10 tokens\) exceed the model's 64 positions. Use 54 or fewer"):
        lengths(load(folder, PolicyConfig()), "w7 " * 6, new=55)
    with pytest.raises(PolicyError, match=r"\('p0', 64 tokens\) exceed the model's 64 positions. Remove prompts"):
        lengths(load(folder, PolicyConfig()), "w7 " * 60, tokens=100, new=1)


def test_positions_of_gpt2(folder, make_model):
    make_model("gpt2").save_pretrained(folder)
    with pytest.raises(PolicyError, match="exceed the model's 64 positions"):
        lengths(load(folder, PolicyConfig()), "w7 " * 6, new=55)


def test_prompts_without_a_token(retokenize):
    with pytest.raises(PolicyError, match="prompt 'p1' has no tokens"):
        lengths(load(retokenize(), formatted()), "w7", " ")


def test_tokenizer_larger_than_the_embedding(retokenize):
    with pytest.raises(PolicyError, match="the tokenizer has 61 tokens, the model's embedding only 60"):
        lengths(load(retokenize(CHAT, size=61), PolicyConfig()), "w7")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_follows_the_precision(make_policy, precision, dtype):
    policy = make_policy(precision=precision)
    with policy.autocast():
        assert policy.model.lm_head(torch.ones(1, 16)).dtype == dtype
    assert policies.best_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
