"""Preferences by hand, leave-one-out without bias, and the verifier with functions that work and that do not."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.algorithms import leave_one_out
from components.config.errors import ConfigError, JudgeError
from components.config.registry import build, find
from components.data.records import Prompt
from components.judges import Judge, preference_from_pairs, preference_from_scores, with_pair_rate
from components.judges.verifier import Verifier
from components.reporting.cards import StepProgress

PROMPTS = [
    Prompt("sum", ({"role": "user", "content": "2 + 2?"},), "4", {"level": 1}),
    Prompt("product", ({"role": "user", "content": "3 * 3?"},), "9", {"level": 2}),
]


def test_the_higher_score_wins_and_equal_scores_tie():
    preference = preference_from_scores(np.array([[3.0, 1.0, 1.0], [-1.0, 0.0, 2.0]]))
    assert preference.tolist() == [
        [[0.5, 1.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]],
        [[0.5, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 1.0, 0.5]],
    ]


def test_bradley_terry_preferences():
    # sigmoid(log 3) = 3 / (3 + 1); at temperature 2 the difference 2·log 3 counts as log 3
    scores = np.array([[2 * np.log(3.0), 0.0, 0.0]])
    expected = [[[0.5, 0.75, 0.75], [0.25, 0.5, 0.5], [0.25, 0.5, 0.5]]]
    np.testing.assert_allclose(preference_from_scores(scores, temperature=2.0), expected, atol=1e-15)
    # sigmoid(2·log 3) = 9 / (9 + 1)
    assert preference_from_scores(scores, temperature=1.0)[0, 0, 1] == pytest.approx(0.9, abs=1e-15)


def test_bradley_terry_preferences_of_far_scores_stay_finite():
    preference = preference_from_scores(np.array([[1e6, -1e6]]), temperature=1e-3)
    np.testing.assert_allclose(preference, [[[0.5, 1.0], [0.0, 0.5]]], atol=1e-300)


def test_scores_whose_difference_no_float_holds():
    scores = np.array([[1.5e308, -1.5e308]])
    for temperature in (None, 2.0):
        assert preference_from_scores(scores, temperature).tolist() == [[[0.5, 1.0], [0.0, 0.5]]]


def test_both_orders_of_a_pair_are_averaged():
    # y_0 wins with 0.9 when shown first and with 1 - 0.3 when shown second: 0.8
    pairs = np.array([[[np.nan, 0.9, 0.5], [0.3, 7.0, 1.0], [0.5, 0.0, -1.0]]])
    expected = [[[0.5, 0.8, 0.5], [0.2, 0.5, 1.0], [0.5, 0.0, 0.5]]]
    np.testing.assert_allclose(preference_from_pairs(pairs, ["p"]), expected, atol=1e-15)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan, np.inf])
def test_a_preference_outside_its_range_names_the_prompt(value):
    pairs = np.full((3, 2, 2), 0.5)
    pairs[1, 0, 1] = value
    with pytest.raises(JudgeError, match=r"prompt 'b': the judge gave a preference that is not in \[0, 1\]"):
        preference_from_pairs(pairs, ["a", "b", "c"])


def test_leave_one_out_by_hand():
    preference = np.array([[[0.5, 1.0, 0.5], [0.0, 0.5, 0.25], [0.5, 0.75, 0.5]]])
    # (1 + 0.5) / 2, (0 + 0.25) / 2, (0.5 + 0.75) / 2
    assert leave_one_out(preference).tolist() == [[0.75, 0.125, 0.625]]
    assert leave_one_out(np.array([[[0.5, 1.0], [0.0, 0.5]]])).tolist() == [[1.0, 0.0]]


def random_game(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A policy and a preference matrix with ties, certainties and a cycle among the first three responses."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.choice([0.0, 0.5, 1.0, rng.random()], size=(size, size)), 1)
    upper[0, 1], upper[1, 2], upper[0, 2] = 0.9, 0.8, 0.3
    preference = upper + np.tril(1 - upper.T, -1) + np.eye(size) / 2
    return rng.dirichlet(np.full(size, 2.0)), preference


@pytest.mark.parametrize("k", [2, 4])
def test_leave_one_out_is_unbiased(k):
    groups, size = 100_000, 6
    policy, preference = random_game(size, seed=0)
    np.testing.assert_allclose(preference + preference.T, 1)
    responses = np.random.default_rng(1).choice(size, size=(groups, k), p=policy)
    judged = preference[responses[:, :, None], responses[:, None, :]]
    win_rate = leave_one_out(judged)
    with_self = judged.mean(-1)
    np.testing.assert_allclose(win_rate.mean(-1), 0.5, atol=1e-12)
    biased = 0
    for y in range(size):
        drawn = responses[:, 0] == y  # one response of each group, so that the samples are independent
        exact = preference[y] @ policy
        limit = 4 * win_rate[drawn, 0].std(ddof=1) / np.sqrt(drawn.sum())
        assert abs(win_rate[drawn, 0].mean() - exact) < limit
        biased += abs(with_self[drawn, 0].mean() - exact) > limit
    assert biased > 0  # the same test finds the bias of counting the tie with itself


def test_the_rate_of_pairs_counts_each_pair_of_responses_once(monkeypatch):
    """Four prompts with three pairs each; a quarter done after two seconds is 1.5 pairs a second."""
    clock = iter([100.0, 102.0, 103.0])
    monkeypatch.setattr("components.judges.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    seen = []
    progress = with_pair_rate(lambda done, total, **figures: seen.append((done, total, figures)), n=4, k=3)
    progress(6, 24)
    progress(24, 24, loss=0.5)
    assert seen == [(6, 24, {"pairs_per_second": 1.5}), (24, 24, {"pairs_per_second": 4.0, "loss": 0.5})]


def test_the_rate_of_pairs_is_seen_in_the_log():
    log = io.StringIO()
    with StepProgress("judge responses", stream=log) as progress:
        with_pair_rate(progress, 4, 3)(24, 24)
    assert re.search(r"24/24 .*, pairs_per_second=[\d.e+]+\]$", log.getvalue())


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
