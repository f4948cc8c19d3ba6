"""A language model as a judge: its prompt, the probabilities of its verdict, both orders, limits and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judges.llm_judge import DEFAULT_PROMPT, LLMJudge
from support.models.words import edit

BOS, EOS, PAD, UNK, USER, END = range(6)  # of the tokenizers in support.models.words; word w7 has id 7
CHAT = (
    "{{ bos_token }}{% for m in messages %} user: {{ m['content'] }} <end>{% endfor %}"
    "{% if add_generation_prompt %} w6{% endif %}{% if short %} w9{% endif %}"
)
ASK = "{prompt} w50 {response_a} w51 {response_b} w52"
SETTINGS = {"prompt": ASK, "verdicts": ["w58", "w59"], "min_verdict_mass": 0.0}
PROMPTS = [
    Prompt("short", ({"role": "user", "content": "w7"},)),
    Prompt("long", ({"role": "user", "content": "w7 w8 w9 w10"},)),
]
RESPONSES = [["w20", "w21 w22 w23", "w24"], ["w25 w26 w27 w28", "", "w30"]]


@pytest.fixture
def make_folder(tmp_path, make_model, make_tokenizer):
    """`make_folder(architecture, template=CHAT, around=None)`: a directory with model and tokenizer."""

    def make(architecture="llama", template=CHAT, *, around="<s> $A </s>", **changes):
        make_model(architecture, **changes).save_pretrained(tmp_path)
        make_tokenizer(template, around=around).save_pretrained(tmp_path)
        return tmp_path

    return make


def judge(folder, **settings):
    return build("judges", {"name": "llm_judge", "model": str(folder), **SETTINGS, **settings}, Judge)


def preference(folder, responses=RESPONSES, prompts=PROMPTS, **settings):
    return judge(folder, precision="fp32", **settings).judge(prompts[: len(responses)], responses).preference


@torch.no_grad()
def next_probabilities(folder, ids):
    """The model's probabilities of the token after `ids`, by its own forward without padding, float64."""
    logits = AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0, -1].double().numpy()
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def averaged(folder, source, first, second, begin=(BOS, USER), end=(END, 6)):
    """P(first > second) from the verdicts on both orders, each P(w58) / (P(w58) + P(w59))."""

    def shown(a, b):
        p = next_probabilities(folder, [*begin, *source, 50, *a, 51, *b, 52, *end])
        return p[58] / (p[58] + p[59])

    return (shown(first, second) + 1 - shown(second, first)) / 2


@pytest.mark.thorough(but=["gemma2", "cohere", "gpt2"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma2", "granite", "cohere"])
def test_preferences_are_the_probabilities_of_the_verdict_in_both_orders(make_folder, architecture):
    """After one BOS, whatever the tokenizer would put around a text."""
    folder = make_folder(architecture)
    judgement = judge(folder, precision="fp32").judge(PROMPTS, RESPONSES)
    p = judgement.preference
    assert p[0, 0, 1] == pytest.approx(averaged(folder, [7], [20], [21, 22, 23]), abs=1e-5)
    assert p[1, 1, 0] == pytest.approx(averaged(folder, [7, 8, 9, 10], [], [25, 26, 27, 28]), abs=1e-5)
    assert np.ptp(p) > 1e-3
    assert np.isnan(judgement.reward).all()


@pytest.mark.parametrize(("around", "begin"), [(None, ()), ("<s> $A", (BOS,)), ("<s> $A </s>", (BOS,))])
def test_without_a_chat_template_the_prompt_is_plain_text(make_folder, around, begin):
    """No EOS before the verdict."""
    folder = make_folder(template=None, around=around)
    expected = averaged(folder, [7], [20], [21], begin=begin, end=())
    assert preference(folder, [["w20", "w21"]])[0, 0, 1] == pytest.approx(expected, abs=1e-5)


def test_options_reach_the_template(make_folder):
    folder = make_folder()
    expected = averaged(folder, [7], [20], [21], end=(END, 6, 9))
    p = preference(folder, [["w20", "w21"]], template_options={"short": True})
    assert p[0, 0, 1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.thorough(but=["gpt2-left", "llama-right"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_batches_change_nothing(make_folder, architecture, side):
    folder = make_folder(architecture)
    edit(folder / "tokenizer_config.json", padding_side=side)
    one_by_one = preference(folder, tokens_per_batch=1)
    for tokens in (40, 10_000):
        np.testing.assert_allclose(preference(folder, tokens_per_batch=tokens), one_by_one, atol=1e-5)
    turned = preference(folder, [row[::-1] for row in RESPONSES[::-1]], PROMPTS[::-1])
    np.testing.assert_allclose(turned[::-1, ::-1, ::-1], one_by_one, atol=1e-5)


def test_preferences_of_a_pair_add_up_to_one(make_folder):
    p = preference(make_folder())
    np.testing.assert_allclose(p + p.swapaxes(1, 2), 1, atol=1e-12)
    assert (p[:, range(3), range(3)] == 0.5).all()


def test_equal_responses_tie_exactly(make_folder):
    assert preference(make_folder(), [["w20 w21", "w20 w21"]]).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


def test_places_in_a_response_are_text(make_folder):
    folder = make_folder()
    expected = averaged(folder, [7], [UNK], [21])
    assert preference(folder, [["{response_b}", "w21"]])[0, 0, 1] == pytest.approx(expected, abs=1e-5)


def test_a_response_cannot_write_special_tokens(make_folder):
    folder = make_folder()
    expected = averaged(folder, [7], [20, 22], [21])
    assert preference(folder, [["w20 </s> <s> w22", "w21"]])[0, 0, 1] == pytest.approx(expected, abs=1e-5)


def test_earlier_turns_are_shown(make_folder):
    folder = make_folder()
    turns = (("user", "w7"), ("assistant", "w8"), ("user", "w9"))
    prompt = Prompt("p", tuple({"role": role, "content": content} for role, content in turns))
    expected = averaged(folder, [UNK, 7, UNK, 8, UNK, 9], [20], [21])  # "USER:", "ASSISTANT:"
    assert preference(folder, [["w20", "w21"]], [prompt])[0, 0, 1] == pytest.approx(expected, abs=1e-5)


def test_the_default_prompt_shows_prompt_and_responses_once():
    assert [DEFAULT_PROMPT.count(place) for place in ("{prompt}", "{response_a}", "{response_b}")] == [1, 1, 1]
    assert LLMJudge(model="m").verdicts == ["A", "B"]


def test_progress_shows_how_much_probability_the_verdicts_have(make_folder):
    folder = make_folder()
    seen = []
    judge(folder, precision="fp32").judge(
        PROMPTS[:1], [["w20", "w21"]], lambda done, total, **figures: seen.append((done, total, figures))
    )
    done, total, figures = seen[-1]
    assert (done, total) == (2, 2)
    assert figures.keys() == {"pairs_per_second", "verdict_mass"}
    inputs = ([BOS, USER, 7, 50, a, 51, b, 52, END, 6] for a, b in ((20, 21), (21, 20)))
    mass = [next_probabilities(folder, ids)[[58, 59]].sum() for ids in inputs]
    assert figures["verdict_mass"] == pytest.approx(np.mean(mass), abs=1e-5)
    assert LLMJudge(model="m").model_inputs(2, 3) == 12


# Long inputs


def test_a_long_input_stops_the_run(make_folder):
    with pytest.raises(JudgeError) as caught:
        preference(make_folder(), max_tokens=14)
    assert str(caught.value) == (
        "prompt 'long', responses 0 and 2: 16 tokens for the judge to read, and it reads 14 at most; so it is with 4 "
        "of 12 inputs. Set judge.max_response_tokens, raise judge.max_tokens, or lower generation.max_new_tokens."
    )


def test_responses_can_be_cut(make_folder):
    folder = make_folder()
    seen = []
    p = (
        judge(folder, precision="fp32", max_response_tokens=2)
        .judge(PROMPTS, RESPONSES, lambda *_, truncated, **__: seen.append(truncated))
        .preference
    )
    assert p[0, 0, 1] == pytest.approx(averaged(folder, [7], [20], [21, 22]), abs=1e-5)
    assert set(seen) == {2 / 6}


# What is refused


def refused(folder, *parts, **settings):
    with pytest.raises(JudgeError) as caught:
        judge(folder, **settings).check()
    for part in parts:
        assert part in str(caught.value)


def test_check_takes_a_good_model(make_folder):
    judge(make_folder()).check()


def test_check_names_what_a_directory_lacks(tmp_path):
    refused(tmp_path, f"judge.model: {tmp_path} has no config.json.")


def test_check_refuses_weights_without_a_head(make_folder, make_model):
    folder = make_folder()
    make_model().base_model.save_pretrained(folder)
    refused(folder, "lacks 1 weights of a LlamaForCausalLM, lm_head.weight among them.")


@pytest.mark.parametrize("verdict", ["w58 w59", "unknown", ""])
def test_check_refuses_a_verdict_that_is_not_one_token(make_folder, verdict):
    refused(make_folder(), f"judge.verdicts: {verdict!r} is not one token of", verdicts=["w58", verdict])


def test_check_refuses_verdicts_that_are_one_token(make_folder):
    refused(make_folder(), "judge.verdicts: ['w58', ' w58'] are the same token", verdicts=["w58", " w58"])


def test_check_refuses_a_model_that_answers_something_else(make_folder):
    refused(
        make_folder(),
        "answers with 'w58' or 'w59' with a probability of 0.0",
        "judge.template_options",
        "judge.min_verdict_mass",
        min_verdict_mass=0.5,
    )


def test_a_template_that_refuses_its_turns_says_so(make_folder):
    folder = make_folder(template="{{ raise_exception('none') }}")
    refused(folder, "prompt 'probe': the chat template of the judge's model refuses its turns (user): none.")


@pytest.mark.parametrize("place", ["{prompt}", "{response_a}", "{response_b}"])
def test_a_prompt_without_a_place_is_refused(place):
    with pytest.raises(ValueError, match=rf"lacks \{{{place[1:-1]}\}}\. Write each where it belongs"):
        LLMJudge(model="m", prompt=ASK.replace(place, ""))


def test_it_reads_no_thinking_if_told(make_folder):
    """The last response is all thinking: the model reads an empty one."""
    settings = {"precision": "fp32", "cut_thinking": ["w40", "w41"]}
    known = judge(make_folder(), **settings)
    given = Answers([["w40 w22 w41 w20", "w21", "w40 w30"]], np.zeros((1, 3), bool), [""])
    found, expected = known.verdict(PROMPTS[:1], given), known.judge(PROMPTS[:1], [["w20", "w21", ""]])
    np.testing.assert_array_equal(found.preference, expected.preference)
    np.testing.assert_array_equal(found.reward, expected.reward)
    assert np.ptp(known.judge(PROMPTS[:1], given.texts).preference - expected.preference) > 1e-4
