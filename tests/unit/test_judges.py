"""The verifier: users' functions, found and called, and what is refused of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from components.config.errors import ConfigError, JudgeError
from components.config.registry import build, find
from components.data.records import Prompt
from components.judges import Judge
from components.judges.verifier import Verifier

PROMPTS = [
    Prompt("sum", ({"role": "user", "content": "2 + 2?"},), "4", {"level": 1}),
    Prompt("product", ({"role": "user", "content": "3 * 3?"},), "9", {"level": 2}),
]
SCORES = """
import numpy as np
from dataclasses import dataclass

@dataclass
class Config:
    scale: "float" = 1.0

def exact(response, prompt):
    return response == prompt.answer

def number(response, prompt):
    return np.float32(response) * prompt.metadata["level"]

def echo(response, prompt):
    return {"none": None, "text": "1", "nan": float("nan"), "inf": np.inf, "list": [1.0]}.get(response, 1)

def fails(response, prompt):
    return 1 / (float(response) - 1)

def numpy_bool(response, prompt):
    return np.bool_(response == "bb")

def wide(response, prompt, strict=True, **options):
    return len(response) + strict

def narrow(response):
    return 0

def keyword_only(response, prompt, *, level):
    return 0

def yields(response, prompt):
    yield 0

class Longest:
    def __call__(self, response, prompt):
        return len(response)

longest = Longest()
CONSTANT = 3
"""


@pytest.fixture
def scores(tmp_path, monkeypatch) -> str:
    """A file of score functions in the working directory, which the import path does not hold yet."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    monkeypatch.chdir(tmp_path)
    Path("math.py").write_text(SCORES)  # named like a standard module, which must not matter
    return "math.py"


def verdict(function: str, responses: list[list[str]], **options: float):
    judge = build("judges", {"name": "verifier", "function": function, **options}, Judge)
    judge.check()
    return judge.judge(PROMPTS[: len(responses)], responses)


def test_responses_are_scored_and_compared(scores):
    judgement = verdict(f"{scores}:exact", [["4", "5", "4"], ["4", "9", "8"]])
    assert judgement.reward.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert judgement.reward.dtype == np.float64
    assert judgement.preference.tolist() == [
        [[0.5, 1, 0.5], [0, 0.5, 0], [0.5, 1, 0.5]],
        [[0.5, 0, 0.5], [1, 0.5, 1], [0.5, 0, 0.5]],
    ]


def test_temperature_softens_the_preference(scores):
    judgement = verdict(f"{scores}:number", [["1", "1"], ["0.5", "0"]], temperature=1 / np.log(3))
    assert judgement.reward.tolist() == [[1, 1], [1, 0]]
    np.testing.assert_allclose(judgement.preference[1], [[0.5, 0.75], [0.25, 0.5]], atol=1e-15)


def test_progress_counts_prompts(scores):
    seen = []
    judge = Verifier(function=f"{scores}:exact")
    judge.judge(PROMPTS, [["4"] * 2] * 2, lambda done, total, pairs_per_second: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert judge.model_inputs(2, 3) == 6


@pytest.mark.parametrize(("function", "reward"), [("wide", [2, 3]), ("longest", [1, 2]), ("numpy_bool", [0, 1])])
def test_callables_of_every_kind(scores, function, reward):
    assert verdict(f"{scores}:{function}", [["a", "bb"]]).reward.tolist() == [reward]


def test_functions_are_found_in_modules_of_the_working_directory(scores):
    package = Path("project_of_the_user")
    package.mkdir()
    (package / "judge.py").write_text(SCORES)
    assert verdict("project_of_the_user.judge:exact", [["4", "5"]]).reward.tolist() == [[1, 0]]


def test_functions_are_found_by_an_absolute_path(scores, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert verdict(f"{tmp_path / scores}:exact", [["4", "5"]]).reward.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("function", "reason", "remedy"),
    [
        ("exact", "has the wrong form", "Write 'module:function' or 'path/to/file.py:function'."),
        ("math.py:", "has the wrong form", "Write 'module:function'"),
        (":exact", "has the wrong form", "Write 'module:function'"),
        ("my judge:exact", "has the wrong form", "Write 'module:function'"),
        ("..judge:exact", "has the wrong form", "Write 'module:function'"),
        ("math.py:exact()", "has the wrong form", "Write 'module:function'"),
        ("no_such_module:exact", "there is no module 'no_such_module' in the working directory (", "Correct"),
        (
            "components.no_such:exact",
            "'components.no_such' in the working directory (",
            "installed packages.",
        ),
        ("json.decoder.deeper:exact", "there is no module 'json.decoder.deeper'", "Correct the name"),
        ("absent.py:exact", "there is no file /", "Correct the path."),
        ("math.py:exakt", "math.py has no 'exakt'", "Define it there, or correct the name."),
        ("math.py:CONSTANT", "is not a plain function", "Define it as score(response, prompt)."),
        ("math.py:yields", "yields where it should return", "Define it as score(response, prompt)."),
        (
            "math.py:narrow",
            "with two arguments (too many positional",
            "Define it as score(response, prompt).",
        ),
        ("math.py:keyword_only", "missing a required", "Define it as score(response, prompt)."),
    ],
)
def test_check_refuses_what_cannot_be_called(scores, function, reason, remedy):
    judge = Verifier(function=function)
    with pytest.raises(JudgeError, match=r"^judge\.function: ") as caught:
        judge.check()
    assert reason in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("function", ["broken_import:score", "broken_import.py:score"])
def test_an_import_that_fails_inside_the_users_module_propagates(scores, function):
    Path("broken_import.py").write_text("import a_package_that_is_not_installed\n")
    for _ in range(2):  # the second time nothing half-imported is left behind
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
            Verifier(function=function).check()


@pytest.mark.parametrize(
    ("response", "shown"),
    [("none", "None"), ("text", "'1'"), ("nan", "nan"), ("inf", "inf"), ("list", "[1.0]")],
)
def test_a_score_that_is_no_number_names_prompt_and_response(scores, response, shown):
    with pytest.raises(JudgeError) as caught:
        verdict(f"{scores}:echo", [["1", "1"], ["1", response]])
    assert str(caught.value) == (
        f"prompt 'product', response 1: math.py:echo returned {shown}. Make it return a finite number."
    )


def test_an_error_of_the_users_function_propagates_with_a_note(scores):
    with pytest.raises(ZeroDivisionError) as caught:
        verdict(f"{scores}:fails", [["2", "3"], ["1", "3"]])
    assert caught.value.__notes__ == [
        "prompt 'product', response 0: raised by math.py:fails, called as judge.function."
    ]
    assert caught.traceback[-1].name == "fails"


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([["4", "5"]], "1 rows of responses for 2 prompts. Give one row per prompt."),
        (
            [["4", "5"], ["9"]],
            "prompt 'product': 1 responses where the first prompt has 2. Give each prompt the same number.",
        ),
    ],
)
def test_rows_that_do_not_match_the_prompts_are_refused(scores, responses, message):
    with pytest.raises(JudgeError) as caught:
        Verifier(function=f"{scores}:exact").judge(PROMPTS, responses)
    assert str(caught.value) == message


def test_the_registry_finds_the_verifier_and_names_it_when_another_is_asked_for():
    assert find("judges", "verifier", Judge) is Verifier
    with pytest.raises(ConfigError, match=r"there is no 'verifer'\. Use one of: .*verifier"):
        find("judges", "verifer", Judge)
