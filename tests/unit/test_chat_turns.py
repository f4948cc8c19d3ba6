"""Where a chat template ends a turn a response ends, and judges read all that it is given."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from components.config.errors import JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.judges import _models
from components.judges.reward_model import RewardModel
from components.policy import vocabulary
from components.policy.model import load
from support.models.families import save_policy, save_reward_model
from support.models.templates import ALL, CHATML, policy, prompt

# Turns that end


@pytest.fixture
def endoftext(tmp_path):
    """ChatML's template over files whose EOS is another token, as base models have it."""
    roles = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    family = replace(CHATML, template=ALL, roles=roles, special=("<|im_start|>", "<|im_end|>"), eos=("<|endoftext|>",))
    return save_policy(family, tmp_path / "model")


def test_a_turn_ends_where_the_template_ends_it(endoftext, caplog):
    found = load(endoftext, PolicyConfig())
    both = set(found.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]))
    assert set(found.eos_ids) == both
    assert set(found.model.generation_config.eos_token_id) == both
    with caplog.at_level(logging.WARNING):
        vocabulary.keep_turn_end(endoftext, found.model, found.tokenizer, found.eos_ids)
    assert "ends a turn with '<|im_end|>', so responses end there too" in caplog.text
    settings = json.loads((endoftext / "generation_config.json").read_text())
    assert set(settings["eos_token_id"]) == both
    assert settings["temperature"] == 0.6
    assert set(load(endoftext, PolicyConfig()).eos_ids) == both


def test_nothing_is_written_or_said_where_the_files_know_it(tmp_path, caplog):
    found = policy(tmp_path, template=ALL)
    before = (tmp_path / "generation_config.json").read_bytes()
    with caplog.at_level(logging.WARNING):
        vocabulary.keep_turn_end(tmp_path, found.model, found.tokenizer, found.eos_ids)
    assert not caplog.records
    assert (tmp_path / "generation_config.json").read_bytes() == before


def test_an_end_of_several_tokens_is_refused(tmp_path):
    with pytest.raises(
        PolicyError, match=r"ends an assistant's turn with '<\|stop\|>', which is \d tokens and not one"
    ):
        policy(tmp_path, template=ALL.replace("im_end", "stop"))


def test_what_a_template_writes_before_eos_ends_no_response(tmp_path):
    """Neither text of several tokens nor a token of its own: EOS stands behind it and ends the turn."""
    plain = policy(tmp_path / "plain", template=ALL)
    for name in ("</answer>", "<|im_start|>"):
        found = policy(tmp_path / name.strip("<>/|"), template=ALL.replace("<|im_end|>", f"{name}<|im_end|>"))
        assert found.eos_ids == plain.eos_ids


def test_a_template_that_ends_no_turn_leaves_eos_as_it_is(tmp_path):
    found = policy(tmp_path, template="{% for m in messages %}{{ m.content }}\n{% endfor %}")
    assert found.eos_ids == tuple(sorted(found.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])))


def test_eos_is_cut_whatever_it_is_called(endoftext):
    found = load(endoftext, PolicyConfig())
    found.tokenizer.add_tokens(["<|stop|>"])  # not special
    stop = found.tokenizer.convert_tokens_to_ids("<|stop|>")
    found = replace(found, eos_ids=(stop,))
    words = found.tokenizer("Hi", add_special_tokens=False)["input_ids"]
    assert found.decode([[*words, stop], words, [stop], [stop, *words], []]) == ["Hi", "Hi", "", "<|stop|>Hi", ""]


# Judges


@pytest.fixture
def reward_model(tmp_path):
    def make(template):
        _models.unload()
        return str(save_reward_model(replace(CHATML, template=template), tmp_path / "judge"))

    yield make
    _models.unload()


def read_by(judge, *turns, response="Paris."):
    loaded = judge._load()
    [row], _ = judge._encode(loaded, [prompt(*turns)], [[response]])
    return loaded.tokenizer.decode(row)


def test_a_reward_models_template_has_options_and_the_same_day(reward_model):
    dated = "{{ strftime_now('%Y') if date is not defined else date }}" + ALL
    model = reward_model(dated)
    turns = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nParis.<|im_end|>\n"
    assert read_by(RewardModel(model=model), "Hi") == f"2024{turns}"
    assert read_by(RewardModel(model=model, template_options={"date": "now"}), "Hi") == f"now{turns}"


def test_a_judge_that_would_not_read_all_is_refused(reward_model):
    model = reward_model("{{ messages[-1].content }}")
    with pytest.raises(
        JudgeError, match="'p7': the chat template of the judge's model leaves out what its user turn says"
    ):
        read_by(RewardModel(model=model), "Hi")
    with pytest.raises(JudgeError, match=r"judge\.model: its chat template draws at random"):
        RewardModel(model=reward_model(ALL + "{{ [1, 2] | random }}")).check()


def test_a_judge_of_parts_reads_them(reward_model):
    parts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}|{% endfor %}{% endfor %}"
    assert read_by(RewardModel(model=reward_model(parts)), "Hi") == "Hi|Paris.|"
