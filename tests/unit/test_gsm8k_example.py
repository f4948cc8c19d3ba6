"""The example of GSM8K: its judge on answers by hand, in threads and beside alarms, and its questions in every form."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import time

import pandas as pd
import pytest

from components import prompts
from components.config.errors import JudgeError
from components.config.registry import build
from components.config.strict_yaml import load_yaml
from components.data.records import Prompt
from components.judges import Judge
from components.run_config import checked
from support.gsm8k import EXAMPLE, TEST, TRAIN, needs_math, save

FUNCTION = f"{EXAMPLE / 'judge.py'}:score"


@pytest.fixture(scope="module")
def judge():
    """The example's module."""
    spec = importlib.util.spec_from_file_location("gsm8k_judge", EXAMPLE / "judge.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def asked(answer="She sold 48/2 = <<48/2=24>>24 in May.\n#### 72"):
    return Prompt("p", ({"role": "user", "content": "How many?"},), answer)


RIGHT = [
    # after each of the marks, or without one
    "She sold 48 + 24 = 72 clips.\n#### 72",
    "The answer is 72.",
    "**Answer:** 72 clips",
    "Therefore, the final answer, in clips, is\n72",
    r"So \[ \boxed{72} \]",
    "She sold 72 clips.",
    "48 and 24 make $72",
    # the last of several marks counts, and the last that has a number
    "#### 71\nNo, wait.\n#### 72",
    r"\boxed{71}, or rather the answer is 72.",
    r"The answer is 71. Checked: $\boxed{72}$",
    "The answer is 72. I hope that this answer is helpful.",
    "She sold 72 clips.\n####",
    # units, currencies, equations, bold type, brackets that nothing closes
    "#### 72 clips in 2 months",
    "#### $72.00",
    r"\boxed{\$72}",
    r"\boxed{72 \text{ clips}}",
    r"\boxed{\text{72 clips}}",
    r"\boxed{24 + 48 = 72}",
    r"\boxed{x = 72}",
    r"#### \boxed{72}",
    "The answer is **72**!",
    r"\boxed{72",
    r"\(72\)",
    # other ways to write it
    r"\boxed{\frac{144}{2}}",
    r"\dfrac{144}{2}",
    "144/2",
    "72.0",
    "72%",
    r"\boxed{72\%}",
]
WRONG = [
    "#### 73",
    "The answer is 71 or 72.",  # so that it does not pay to give several
    r"\boxed{72} is what I thought, but it is \boxed{71}",
    "-72",
    "#### \u221272",
    "720",
    "0.72",
    "72.5",
    "7,2",
    "1,072",
    "Of 72 clips she sold 2.",
    r"\boxed{9^{9^{9^{9}}}}",
    r"\frac{72}{0}",
    "72/0",
]
NONE = [
    "",
    "   ",
    "x72",
    "I do not know.",
    "####",
    r"\boxed{}",
    "The answer is many.",
    "9" * 1000,
    f"#### {'9' * 100_000}",
]


@needs_math
@pytest.mark.parametrize("response", RIGHT)
def test_right(judge, response):
    assert judge.score(response, asked()) == {"score": 1.0, "correct": True, "answered": True}


@needs_math
@pytest.mark.parametrize("response", WRONG)
def test_wrong(judge, response):
    assert judge.score(response, asked()) == {"score": 0.0, "correct": False, "answered": True}


@needs_math
@pytest.mark.parametrize("response", NONE)
def test_no_answer(judge, response):
    assert judge.score(response, asked()) == {"score": 0.0, "correct": False, "answered": False}


@needs_math
@pytest.mark.parametrize(
    ("wanted", "response"),
    [
        ("2,125", "2125"),
        ("2125", "$2,125.00"),
        ("2125", r"\boxed{2{,}125}"),
        ("2125", r"\boxed{2\,125}"),
        ("2125", "2\u202f125"),
        ("1234567", "1,234,567 dollars"),
        ("-3", "- 3"),
        ("-3", "\u22123"),
        ("0.5", "1/2"),
        ("0.5", ".5"),
        ("1.5", "1 1/2"),
        ("1.5", r"1\frac{1}{2}"),
        ("3.5", "3,5"),
        ("42", "The result: 42"),
    ],
)
def test_ways_to_write_a_number(judge, wanted, response):
    assert judge.score(response, asked(f"#### {wanted}"))["correct"]
    assert not judge.score(response, asked("#### 77"))["correct"]


@needs_math
@pytest.mark.parametrize("answer", [None, "", "many", "#### "])
def test_a_prompt_without_a_number(judge, answer):
    with pytest.raises(ValueError, match=r"has no number. One of GSM8K ends with '#### 42'"):
        judge.score("42", asked(answer))


@needs_math
@pytest.mark.parametrize("text", ["answer is ", r"\boxed{", "####", "1,", r"\text{", r"\frac{", "- ", "1/", "1 "])
def test_long_responses_take_no_time(judge, text):
    begin = time.process_time()
    judge.score(text * 20_000, asked())
    assert time.process_time() - begin < 5


@needs_math
def test_an_alarm_of_others_still_rings(judge):
    """math-verify's own time limit would take it away."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        assert judge.score(r"\boxed{\frac{144}{2}}", asked())["correct"]
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@needs_math
@pytest.mark.parametrize("settings", [{"workers": 8}, {"timeout": 60}, {"workers": 2, "timeout": 60}])
def test_as_a_run_calls_it(settings):
    one = build("judges", {"name": "verifier", "function": FUNCTION, **settings}, Judge)
    one.check()
    asking = [Prompt(f"p{i}", asked().messages, f"#### {i}") for i in range(30)]
    responses = [[rf"\boxed{{\frac{{{2 * i}}}{{2}}}}", f"#### {i + 1}", f"It is {i}.0", "?"] for i in range(30)]
    found = one.judge(asking, responses)
    assert found.reward.tolist() == [[1.0, 0.0, 1.0, 0.0]] * 30
    assert found.parts["correct"].tolist() == found.reward.tolist()
    assert found.parts["answered"].tolist() == [[1.0, 1.0, 1.0, 0.0]] * 30
    assert found.preference[0].tolist() == [[0.5, 1, 0.5, 1], [0, 0.5, 0, 0.5], [0.5, 1, 0.5, 1], [0, 0.5, 0, 0.5]]


def test_the_library_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    spec = importlib.util.spec_from_file_location("gsm8k_judge_alone", EXAMPLE / "judge.py")
    with pytest.raises(JudgeError, match=r"math_verify is not installed\. Run pip install -r requirements-math\.txt"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def config(tmp_path, **changes):
    values = load_yaml((EXAMPLE / "config.yaml").read_text("utf-8"))
    return checked({**values, "prompts": {**values["prompts"], **changes}})


def test_questions_of_the_dataset(tmp_path):
    """As downloaded: the split to train on, and the one to evaluate on, of the subset that the config names."""
    settings = config(tmp_path, train=str(save(tmp_path / "gsm8k"))).prompts
    check(settings)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_questions_in_files(tmp_path, kind):
    for name, rows in (("train", TRAIN), ("test", TEST)):
        if kind == "parquet":
            pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
        else:
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train": str(tmp_path / f"train.{kind}"), "evaluation": str(tmp_path / f"test.{kind}")}
    check(config(tmp_path, **files, subset=None, evaluation_split=None).prompts)


def check(settings):
    columns = prompts.Columns(settings.column, settings.leave_out)
    train, held_out = (
        prompts.load_source(source, columns, allow_duplicates=True) for source in prompts.configured(settings)
    )
    assert [(prompt.text, prompt.answer) for prompt in train] == [(row["question"], row["answer"]) for row in TRAIN]
    assert [(prompt.text, prompt.answer) for prompt in held_out] == [(row["question"], row["answer"]) for row in TEST]


def test_once_through_the_questions(tmp_path):
    whole = config(tmp_path)
    assert 7000 < whole.iterations * whole.prompts.per_iteration <= 7473
    assert whole.prompts.per_iteration % whole.training.batch_size == 0
