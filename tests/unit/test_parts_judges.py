"""Functions that return named parts beside their score: what the verifier and an ensemble make of them."""

from __future__ import annotations

from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge
from components.judges.verifier import Verifier

PROMPTS = [Prompt(name, ({"role": "user", "content": "?"},)) for name in ("one", "two")]
ANSWERS = {
    "plain": 1,
    "even": {"score": 1, "length": 3, "even": True},
    "odd": {"score": np.float32(0.5), "even": np.bool_(False), "length": np.int64(4)},
    "half": {"score": Fraction(1, 2), "even": 0, "length": -2.5},
    "alone": {"score": 2},
    "mapping": MappingProxyType({"score": 2, "even": 0, "length": 0}),
    "no score": {"value": 1, "length": 2},
    "empty": {},
    "no score at all": {"Score": 1, "score": None, "length": 1},
    "nan": {"score": 1, "length": float("nan")},
    "huge": {"score": 1, "length": 10**400},
    "huge alone": 10**5000,
    "text": {"score": 1, "length": "3"},
    "none": {"score": 1, "length": None},
    "list": {"score": 1, "length": [3]},
    "space": {"score": 1, "two words": 1},
    "digit": {"score": 1, "1st": 1},
    "accent": {"score": 1, "längs": 1},
    "blank": {"score": 1, "": 1},
    "number": {"score": 1, 7: 1},
    "clash": {"score": 1, "SCORE": 1},
    "low": {"score": 1, "even_low": 1},
    "reference": {"score": 1, "even_reference": 1},
    "named low": {"score": 1, "low": 1, "reference": 2},
    "fewer": {"score": 1, "even": 1},
    "other": {"score": 1, "even": 1, "width": 1, "age": 2},
}


def answer(response, prompt):
    return ANSWERS[response]


def words(response, prompt):
    return {"score": len(response.split()), "words": len(response.split())}


def judge(rows):
    return Verifier(function=f"{__name__}:answer").judge(PROMPTS[: len(rows)], rows)


def test_parts_stand_beside_the_scores_and_decide_nothing():
    """Names in the order of the first response; whatever their order in the others."""
    judgement = judge([["even", "odd"], ["half", "mapping"]])
    assert judgement.reward.tolist() == [[1, 0.5], [0.5, 2]]
    assert judgement.preference.tolist() == [[[0.5, 1], [0, 0.5]], [[0.5, 0], [1, 0.5]]]
    assert list(judgement.parts) == ["length", "even"]
    assert judgement.parts["length"].tolist() == [[3, 4], [-2.5, 0]]
    assert judgement.parts["even"].tolist() == [[1, 0], [0, 0]]
    assert {values.dtype for values in judgement.parts.values()} == {np.dtype(np.float64)}


def test_a_plain_number_and_a_dict_with_the_score_alone_have_no_parts():
    judgement = judge([["plain", "alone"]])
    assert judgement.reward.tolist() == [[1, 2]]
    assert judgement.parts == {}


def test_names_that_only_look_like_those_of_bounds():
    assert {name: values.tolist() for name, values in judge([["named low"]]).parts.items()} == {
        "low": [[1]],
        "reference": [[2]],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["even", "no score"], "a dict without 'score', which decides preferences; its names: 'value', 'length'. Add"),
        (["even", "empty"], "a dict without 'score', which decides preferences; its names: none. Add it"),
        (["even", "no score at all"], "None as 'score'. Make it a finite number or a bool."),
        (["even", "nan"], "nan as 'length'. Make it a finite number or a bool."),
        (["even", "text"], "'3' as 'length'. Make it a finite number or a bool."),
        (["even", "none"], "None as 'length'. Make it a finite number or a bool."),
        (["even", "list"], "[3] as 'length'. Make it a finite number or a bool."),
        (["even", "fewer"], "other parts than for the first response: it lacks 'length'. Return the same names"),
        (["fewer", "even"], "other parts than for the first response: it adds 'length'. Return the same names"),
        (["even", "other"], "it lacks 'length' and adds 'age', 'width'. Return the same names for every response."),
        (["even", "plain"], "it lacks 'even', 'length'. Return the same names for every response."),
        (["plain", "even"], "it adds 'even', 'length'. Return the same names for every response."),
    ],
)
def test_what_cannot_be_used_names_prompt_response_and_remedy(row, message):
    with pytest.raises(JudgeError) as caught:
        judge([[row[0], row[0]], row])
    assert str(caught.value).startswith(f"prompt 'two', response 1: {__name__}:answer returned ")
    assert message in str(caught.value)


@pytest.mark.parametrize("response", ["huge", "huge alone"])
def test_whole_numbers_that_no_float_holds(response):
    with pytest.raises(JudgeError, match=r"^prompt 'one', response 0: .*bits, which no float holds.*finite number"):
        judge([[response]])


@pytest.mark.parametrize(
    ("response", "name", "remedy"),
    [
        ("space", "'two words'", "Use letters, digits and underscores"),
        ("digit", "'1st'", "no digit at the beginning"),
        ("accent", "'längs'", "Use letters, digits and underscores"),
        ("blank", "''", "Use letters, digits and underscores"),
        ("number", "7", "Use letters, digits and underscores"),
        ("clash", "'SCORE'", "Give it a name of its own."),
        ("low", "'even_low'", "Give it another name."),
        ("reference", "'even_reference'", "Give it another name."),
    ],
)
def test_names_that_history_cannot_take(response, name, remedy):
    with pytest.raises(JudgeError) as caught:
        judge([[response]])
    assert str(caught.value).startswith(f"prompt 'one', response 0: {__name__}:answer names a part {name}")
    assert remedy in str(caught.value)


def ensemble(*functions):
    members = [{"name": "verifier", "function": f"{__name__}:{name}"} for name in functions]
    return build("judges", {"name": "ensemble", "judges": members}, Judge)


def test_an_ensemble_keeps_the_parts_of_its_members(monkeypatch):
    monkeypatch.setitem(ANSWERS, "two words", {"score": 0, "even": True})
    monkeypatch.setitem(ANSWERS, "word", {"score": 1, "even": False})
    judgement = ensemble("answer", "words").judge(PROMPTS[:1], [["two words", "word"]])
    assert judgement.reward.tolist() == [[1, 1]]  # (0 + 2) / 2, (1 + 1) / 2
    assert {name: values.tolist() for name, values in judgement.parts.items()} == {"even": [[1, 0]], "words": [[2, 1]]}


def test_an_ensemble_refuses_a_part_that_two_members_give():
    with pytest.raises(JudgeError) as caught:
        ensemble("words", "words").judge(PROMPTS[:1], [["a", "b"]])
    assert str(caught.value) == (
        "judge.judges.1: returns a part 'words', as judge.judges.0 does. Rename it in one of the two."
    )
