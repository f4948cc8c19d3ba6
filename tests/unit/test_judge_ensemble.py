"""Ensembles: weighted means by hand, progress of the whole, and keys of members in every error."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.config.errors import ConfigError, JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge
from components.judges.ensemble import Ensemble
from components.run_config import parse

PROMPTS = [Prompt(name, ({"role": "user", "content": "?"},)) for name in ("p", "q")]
RESPONSES = [["a", "bb"], ["ccc", "d"]]
SCORES = """
def length(response, prompt):
    return len(response)

def vowel(response, prompt):
    return 10 * (response[0] in "aeiou")

def nothing(response, prompt):
    return None
"""


@pytest.fixture(autouse=True)
def scores(tmp_path, monkeypatch):
    """A file of score functions in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("scores.py").write_text(SCORES)


def member(function, **more):
    return {"name": "verifier", "function": f"scores.py:{function}", **more}


def ensemble(*members):
    return build("judges", {"name": "ensemble", "judges": list(members)}, Judge)


def test_preferences_and_rewards_are_weighted_means():
    """Length prefers bb to a and ccc to d, the vowel a to bb, and nothing of the second row; weights 3 and 1."""
    judgement = ensemble(member("length", weight=3), member("vowel", weight=1)).judge(PROMPTS, RESPONSES)
    assert judgement.preference.tolist() == [
        [[0.5, 0.25], [0.75, 0.5]],
        [[0.5, 0.875], [0.125, 0.5]],
    ]
    # (3·1 + 10) / 4, (3·2 + 0) / 4; (3·3) / 4, (3·1) / 4
    assert judgement.reward.tolist() == [[3.25, 1.5], [2.25, 0.75]]


def test_weights_are_equal_unless_given():
    judgement = ensemble(member("length"), member("vowel")).judge(PROMPTS, RESPONSES)
    assert judgement.preference.tolist() == [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.75], [0.25, 0.5]]]


def test_rewards_are_missing_where_one_member_has_none(tmp_path, make_model, make_tokenizer):
    make_model().save_pretrained(tmp_path / "model")
    template = "{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %}"
    make_tokenizer(template).save_pretrained(tmp_path / "model")
    pairwise = {
        "name": "llm_judge",
        "model": str(tmp_path / "model"),
        "verdicts": ["w58", "w59"],
        "min_verdict_mass": 0,
    }
    alone = build("judges", pairwise, Judge).judge(PROMPTS, RESPONSES).preference
    both = ensemble(member("length", weight=1.0), {**pairwise, "weight": 3.0})
    seen = []
    judgement = both.judge(PROMPTS, RESPONSES, lambda done, total, **figures: seen.append((done, total, figures)))
    assert np.isnan(judgement.reward).all()
    assert judgement.preference[0, 0, 1] == pytest.approx((0 + 3 * alone[0, 0, 1]) / 4, abs=1e-9)
    np.testing.assert_allclose(judgement.preference + judgement.preference.swapaxes(1, 2), 1, atol=1e-12)
    assert both.model_inputs(2, 2) == 8  # four responses, and two prompts with two ordered pairs each
    assert [step[:2] for step in seen][:2] == [(2, 8), (4, 8)]
    assert seen[-1][:2] == (8, 8)
    assert seen[-1][2].keys() == {"pairs_per_second", "verdict_mass"}


def test_the_rate_of_pairs_is_that_of_the_whole(monkeypatch):
    """Two pairs, a quarter of the inputs read: half a pair since the ensemble began."""
    clock = SimpleNamespace(perf_counter=count(10).__next__)  # a second passes with each look at it
    monkeypatch.setattr("components.judges.time", clock)
    seen = []
    ensemble(member("length"), member("vowel")).judge(
        PROMPTS, RESPONSES, lambda done, total, pairs_per_second: seen.append((done, total, pairs_per_second))
    )
    # the ensemble begins at 10, its first member at 11, whose first step the member sees at 12 and the ensemble at 13
    assert seen[0] == (2, 8, pytest.approx(0.5 / 3))


def test_a_config_is_filled_with_the_members_defaults():
    text = """
    demo: {}
    judge:
      name: ensemble
      judges:
        - {name: verifier, function: components.demo:score, weight: 2}
        - {name: reward_model, model: some/model}
    """
    first, second = parse(text)["judge"]["judges"]
    defaults = {"temperature": None, "workers": 1, "batch_size": None, "timeout": None, "files": []}
    defaults |= {"cut_thinking": None, "truncated_penalty": 0.0}
    assert first == {"name": "verifier", "function": "components.demo:score", **defaults, "weight": 2.0}
    assert second["weight"] == 1.0
    assert second["tokens_per_batch"] == 8192


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        ("[{name: verifier, functoin: x}]", "judge.judges.0.function: is required.\njudge.judges.0.functoin: unknown"),
        ("[{name: verifier, function: 'a:b'}, {name: verifer}]", "judge.judges.1: there is no 'verifer'. Use one of"),
        ("[{weight: 1}]", "judge.judges.0: give a `name`"),
        ("[verifier]", "judge.judges.0: give a `name`"),
        ("[{name: verifier, function: 'a:b', weight: 0}]", "judge.judges.0.weight: 0 cannot be used. Give a positive"),
        ("[{name: verifier, function: 'a:b', weight: 0.0}]", "or remove the judge: it would be asked and not counted."),
        ("[{name: verifier, function: 'a:b', weight: x}]", "judge.judges.0.weight: 'x' cannot be used."),
        ("[{name: verifier, function: 'a:b', weight: true}]", "judge.judges.0.weight: True cannot be used."),
        ("[]", "judge.judges: [] cannot be used."),
        ("3", "judge.judges: 3 cannot be used."),
        (
            "[{name: ensemble, judges: [{name: reward_model, model: m, temperature: -1.0}]}]",
            "judge.judges.0.judges.0.temperature: -1.0 cannot be used.",
        ),
    ],
)
def test_a_bad_member_is_named_by_its_key(judges, message):
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\njudge: {{name: ensemble, judges: {judges}}}")
    assert message in str(caught.value)


def test_every_bad_member_is_named():
    with pytest.raises(ConfigError) as caught:
        parse("demo: {}\njudge: {name: ensemble, judges: [{name: verifier}, {name: reward_model}]}")
    assert str(caught.value).splitlines() == [
        "judge.judges.0.function: is required.",
        "judge.judges.1.model: is required.",
    ]


def test_an_ensemble_needs_its_members():
    with pytest.raises(ConfigError, match=r"judge\.judges: is required"):
        parse("demo: {}\njudge: {name: ensemble}")


def test_check_names_the_members_place():
    with pytest.raises(JudgeError) as caught:
        ensemble(member("length"), member("absent")).check()
    assert str(caught.value).startswith("judge.judges.1.function: scores.py has no 'absent'.")


def test_check_names_the_place_within_an_ensemble_of_ensembles(tmp_path):
    inner = {"name": "ensemble", "judges": [member("length"), {"name": "reward_model", "model": str(tmp_path)}]}
    with pytest.raises(JudgeError) as caught:
        ensemble(inner).check()
    assert str(caught.value).startswith(f"judge.judges.0.judges.1.model: {tmp_path} has no config.json.")


def test_a_verdict_that_cannot_be_used_propagates():
    with pytest.raises(JudgeError, match=r"prompt 'p', response 0: scores\.py:nothing returned None"):
        ensemble(member("nothing")).judge(PROMPTS, RESPONSES)


def test_the_cost_is_that_of_all_members():
    members = [
        member("length"),
        {"name": "pairrm"},
        {"name": "reward_model", "model": "m"},
        {"name": "llm_judge", "model": "m"},
    ]
    # n = 10, K = 4: 40 responses, 120 ordered pairs, 40 responses, 120 ordered pairs
    assert ensemble(*members).model_inputs(10, 4) == 320
    assert isinstance(ensemble(*members), Ensemble)


@pytest.mark.parametrize("weights", [(1e308, 1e308), (5e-324, 5e-324), (1.5e308, 1.5e308)])
def test_only_the_proportions_of_weights_count(weights):
    first, second = weights
    judge = ensemble(member("length", weight=first), member("vowel", weight=second))
    judgement = judge.judge(PROMPTS, RESPONSES)
    # "a" is a vowel's, of length 1; "bb" longer: one member each. "ccc" is longer than "d", and neither has a vowel.
    assert judgement.preference[:, 0, 1].tolist() == [0.5, 0.75]
    assert judgement.reward.tolist() == [[5.5, 1.0], [1.5, 0.5]]


@pytest.mark.parametrize("weight", ["5.0e-324", "1.0e-17"])
def test_a_member_without_a_say_is_refused(weight):
    members = f"{{name: verifier, function: 'a:b'}}, {{name: verifier, function: 'a:c', weight: {weight}}}"
    with pytest.raises(ConfigError, match=rf"^judge\.judges: the weight {float(weight)!r} of member 1 is nothing"):
        parse(f"demo: {{}}\njudge: {{name: ensemble, judges: [{members}]}}")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("name: verifier", "judge.judges.0.function: is required."),
        ("name: verifer", "judge.judges.0.name: there is no"),
    ],
)
def test_a_bad_setting_does_not_hide_a_bad_weight(settings, line):
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\njudge: {{name: ensemble, judges: [{{{settings}, weight: -1}}]}}")
    first, second = str(caught.value).splitlines()
    assert first.startswith(line)
    assert second.startswith("judge.judges.0.weight: -1 cannot be used.")
