"""What judges read of responses that think before they answer, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from components.config.errors import ConfigError
from components.config.registry import build
from components.config.sections import PolicyConfig
from components.data import rollouts, texts
from components.data.records import Prompt, Ragged, Rollout
from components.generation import Engine, Samples, Sampling
from components.judges import Answers, Judge
from components.judges._thinking import cut
from components.judges.verifier import Verifier
from components.policy.model import load
from components.run_config import RunConfig, parse
from components.stages import sampling
from support.models.bytewise import END, EOS, PAD, tokenizer
from support.models.tiny import make_policy

PROMPTS = [Prompt("one", ({"role": "user", "content": "a"},))]
read: list[str] = []


def length(response, prompt):
    read.append(response)
    return len(response)


@pytest.fixture(autouse=True)
def _nothing_read_yet():
    read.clear()


# The part that is cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the answer", "the answer"),
        ("", ""),
        ("<think>why</think>the answer", "the answer"),
        ("<think>\nwhy\n</think>\n\nthe answer", "the answer"),
        ("well, <think>why</think> yes <think>sure</think>.", "well, yes ."),
        ("<think></think>x", "x"),
        ("<think>why", ""),  # cut off while it thinks
        ("<think>why</thin", ""),
        ("so <think>why</think> x <think>and", "so x "),
        ("why</think>the answer", "the answer"),  # the prompt had the opening mark
        ("why</think>\na <think>b</think>c", "a c"),
        ("<think>a<think>b</think>c", "c"),  # no part within a part
        ("<think>a</think>b</think>c", "b</think>c"),  # text: there was no opening mark
        ("a <thinking> b", "a <thinking> b"),
        ("<think>a</think><think>b</think>c", "c"),
        ("<think>a</think>", ""),
    ],
)
def test_what_is_left(text, expected):
    assert cut(text, "<think>", "</think>") == expected


@pytest.mark.parametrize(
    ("prompt_end", "text", "expected"),
    [
        ("<assistant>\n<think>\n", "why</think>\n\nyes", "yes"),
        ("<assistant>\n<think>\n", "why, and then", ""),  # nothing closes it
        ("<assistant><think>", "", ""),
        ("<think>\n", "a <think> b</think>c", "c"),
        ("<think>\n", "a</think>b<think>c</think>d", "bd"),
        ("<think>\n\n</think>\n\n", "yes", "yes"),  # thinking is off
        ("<think>\n\n</think>\n\n", "<think>no</think>yes", "yes"),
        ("what does <think> mean?<assistant>", "a mark", "a mark"),
    ],
)
def test_a_prompt_may_begin_the_thinking(prompt_end, text, expected):
    assert cut(text, "<think>", "</think>", prompt_end=prompt_end) == expected


def test_marks_of_ones_own():
    assert cut("[[a]] b ◁c▷", "[[", "]]") == "b ◁c▷"
    assert cut("[[a]] b ◁c▷d", "◁", "▷") == "[[a]] b d"


# In judges


def answers(*rows, prompt_ends=None, truncated=None):
    shape = len(rows), len(rows[0])
    cut_off = np.zeros(shape, bool) if truncated is None else np.array(truncated)
    return Answers(rows, cut_off, prompt_ends or [""] * len(rows))


def verdict(settings, *rows, **known):
    judge = build("judges", settings, Judge)
    prompts = [replace(PROMPTS[0], id=str(i)) for i in range(len(rows))]
    return judge.verdict(prompts, answers(*rows, **known))


FUNCTION = {"name": "verifier", "function": f"{__name__}:length"}
THOUGHTS = ["<think>a long thought</think>yes", "no thought", "<think>none ends"]


def test_a_judge_reads_all_unless_told_otherwise():
    assert verdict(FUNCTION, THOUGHTS).reward.tolist() == [[32, 10, 16]]
    assert read == THOUGHTS


def test_a_function_reads_no_thinking_if_told():
    """Lengths 3, 10, 0."""
    judgement = verdict({**FUNCTION, "cut_thinking": True}, THOUGHTS)
    assert read == ["yes", "no thought", ""]
    assert judgement.reward.tolist() == [[3, 10, 0]]
    assert judgement.preference[0].tolist() == [[0.5, 0, 1], [1, 0.5, 1], [0, 0, 0.5]]


def test_each_prompt_has_its_own_end():
    settings = {**FUNCTION, "cut_thinking": True}
    verdict(settings, ["a", "b</think>c"], ["a", "b</think>c"], prompt_ends=["<think>\n", ""])
    assert read == ["", "c", "a", "c"]


def test_members_of_an_ensemble_each_read_what_they_are_to():
    members = [FUNCTION, {**FUNCTION, "cut_thinking": True}, {**FUNCTION, "cut_thinking": ["[", "]"]}]
    judgement = verdict({"name": "ensemble", "judges": members}, ["<think>why</think>no [it]"])
    assert read == ["<think>why</think>no [it]", "no [it]", "<think>why</think>no "]
    assert judgement.reward.tolist() == [[pytest.approx((25 + 7 + 21) / 3)]]
    read.clear()
    verdict({"name": "ensemble", "judges": members, "cut_thinking": True}, ["<think>why</think>no [it]"])
    assert read == ["no [it]", "no [it]", "no "]
    assert build("judges", {"name": "ensemble", "judges": members}, Judge).marks() == {"<think>", "</think>", "[", "]"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[<think>]", "judge.cut_thinking: ['<think>'] cannot be used. Write true, or two marks, such as [<think>, "),
        ("<think>", "judge.cut_thinking: '<think>' cannot be used."),
        ("['', x]", "judge.cut_thinking: ['', 'x'] are no two marks that can be told apart."),
        ("[x, ' ']", "judge.cut_thinking: ['x', ' '] are no two marks"),
        ("[x, x]", "judge.cut_thinking: ['x', 'x'] are no two marks"),
        ("[think>, /think>]", "judge.cut_thinking: ['think>', '/think>'] are no two marks"),
        ("1", "judge.cut_thinking: 1 cannot be used."),
        ("[1, 2]", "judge.cut_thinking: [1, 2] cannot be used."),
    ],
)
def test_marks_that_cannot_be_used(value, message):
    text = "policy: {model: m}\nprompts: {train: p.jsonl}\njudge: {name: verifier, function: 'a:b', cut_thinking: %s}"
    with pytest.raises(ConfigError) as caught:
        parse(text % value)
    assert str(caught.value).startswith(message)


def test_the_usual_marks_are_written_out():
    judge = "judge: {name: verifier, function: 'a:b', cut_thinking: %s}"
    filled = [parse(f"demo: {{}}\n{judge % value}")["judge"]["cut_thinking"] for value in ("true", "false", "[a, b]")]
    assert filled == [["<think>", "</think>"], None, ["a", "b"]]


# From the policy to the judge


class Says(Engine):
    """Gives the responses that it is told to."""

    name: str = "says"
    rows: list[list[int]]

    def check(self):
        pass

    def sample(self, policy, prompts, seeds, sampling, progress=None):
        return Samples(Ragged.of(self.rows), np.ones(seeds.shape, bool))


def generated(policy, *responses):
    ids = [[*policy.tokenizer(text, add_special_tokens=False)["input_ids"], EOS] for text in responses]
    run = {"responses": len(ids), "sampling": Sampling(99), "seed": 0, "purpose": "train", "iteration": 1}
    return sampling.generate(policy, Says(rows=ids), PROMPTS, **run)


OPENS = "{{ bos_token }}{{ messages[-1]['content'] }}{% if add_generation_prompt %}<end><think>\n{% endif %}"


def with_template(template):
    return replace(make_policy(), tokenizer=tokenizer(template), eos_ids=(EOS,), pad_id=PAD)


def test_the_response_is_kept_whole_and_judged_without_thinking(tmp_path):
    policy = with_template(OPENS)
    rollout = generated(policy, "why</think>\n\nyes", "but then")
    assert rollout.prompt_ends == ["<s>a<end><think>\n"]
    assert rollout.texts == ["why</think>\n\nyes", "but then"]
    loaded = rollouts.load_rollout(rollouts.save_rollout(rollout, tmp_path / "rollout.parquet"))
    assert (loaded.texts, loaded.prompt_ends) == (rollout.texts, rollout.prompt_ends)
    judge = Verifier(function=f"{__name__}:length", cut_thinking=True)
    older = replace(loaded, prompt_ends=None)  # of a run before the end was kept
    for known in ([rollout], [loaded], [older, loaded]):
        read.clear()
        sampling.judge(judge, PROMPTS, known)
        assert read == ["yes", ""] * len(known)


def test_marks_that_are_special_tokens_are_shown_and_no_others():
    """The template's own <end> stands for such a mark here; <pad> stays hidden."""
    names = tokenizer(OPENS)
    assert texts.shown_tokens(names, ["<think>", "</think>"]) == ()
    assert texts.shown_tokens(names, ["<s>x", "<end>"]) == (0, END)
    policy = replace(with_template(OPENS), shown=(END,))
    row = [*names("a")["input_ids"], END, PAD, *names("b")["input_ids"], EOS]
    assert policy.decode([row]) == ["a<end>b"]
    assert replace(policy, shown=()).decode([row]) == ["ab"]


def test_a_policy_shows_what_its_judge_needs(tmp_path):
    policy = make_policy()
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    pad = policy.tokenizer.convert_tokens_to_ids("<pad>")
    assert load(tmp_path, PolicyConfig(), marks={"<pad>", "x"}).shown == (pad,)
    assert load(tmp_path, PolicyConfig()).shown == ()
    config = RunConfig.model_validate(
        parse("demo: {}\njudge: {name: verifier, function: 'a:b', cut_thinking: [<pad>, b]}")
    )
    from components.stages.context import open_workspace

    with open_workspace(config, str(tmp_path / "store"), "generate") as work:
        assert work.policy(work.keep_files(tmp_path)).shown == (pad,)


def test_a_rollout_of_unknown_prompt_ends_is_read_as_it_is():
    rollout = Rollout(["one"], Ragged.of([[5]]), Ragged.of([[6]]), ["a</think>b"], np.ones((1, 1), bool))
    sampling.judge(Verifier(function=f"{__name__}:length", cut_thinking=True), PROMPTS, [rollout])
    assert read == ["b"]
