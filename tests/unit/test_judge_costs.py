"""The table of what judges cost: its counts are those of real calls, and the page has it by now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judging import costs
from support.loopback_server import said, serving

ROOT = Path(__file__).parents[2]
PROMPT = Prompt("p", ({"role": "user", "content": "?"},))
TEXTS = [[f"response {k}" for k in range(8)]]
CASES = {case.label: case for case in costs.CASES}
called: list[str] = []


def counted(response, prompt):
    called.append(response)
    return 0


def judged(settings):
    """Judges eight unlike responses to one prompt."""
    judge = build("judges", settings, Judge)
    judge.verdict([PROMPT], Answers(TEXTS, np.zeros((1, 8), dtype=bool), [""]))


# By hand: 8 responses; 8·7 ordered pairs; 8·3/2 and 8·2/2 pairs in both orders; two listings
@pytest.mark.thorough(but=["24", "2", "8"])
@pytest.mark.parametrize(
    ("label", "requests"),
    [
        ("`openai`, `mode: pairs`", 56),
        ("… with `opponents: 3`", 24),
        ("… with `opponents: 2`", 16),
        ("`openai`, `mode: scores`", 8),
        ("`openai`, `mode: ranks`", 2),
    ],
)
def test_an_endpoint_is_asked_as_often_as_the_table_says(monkeypatch, label, requests):
    pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    answer = {"scores": "5", "ranks": "1, 2, 3, 4, 5, 6, 7, 8"}.get(CASES[label].settings["mode"], "A")
    with serving(lambda body, _: said(answer)) as server:
        judged({**CASES[label].settings, "base_url": f"{server.address}/v1"})
    assert len(server.bodies) == requests == costs.calls(CASES[label])


def test_a_url_gets_as_many_texts_in_one_request():
    case = CASES["`http`, 16 texts in a request"]
    with serving(lambda body, _: {"scores": [0.0] * len(body["responses"])}) as server:
        judged({**case.settings, "url": server.address})
    assert [len(body["responses"]) for body in server.bodies] == [8] == [costs.calls(case)]


def test_a_function_is_called_as_often():
    called.clear()
    judged({"name": "verifier", "function": f"{__name__}:counted"})
    assert len(called) == 8 == costs.calls(CASES["`verifier`"])


@pytest.mark.parametrize(("opponents", "inputs"), [(None, 56), (3, 24)])
def test_a_language_model_reads_as_many_inputs(tmp_path, make_model, make_tokenizer, opponents, inputs):
    make_model().save_pretrained(tmp_path)
    make_tokenizer("{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %}").save_pretrained(tmp_path)
    own = {"prompt": "{prompt} {response_a} {response_b}", "verdicts": ["w58", "w59"], "min_verdict_mass": 0.0}
    settings = {"name": "llm_judge", "model": str(tmp_path), "precision": "fp32", "opponents": opponents, **own}
    judge = build("judges", settings, Judge)
    totals = set()
    texts = [[f"w{10 + k}" for k in range(8)]]
    answers = Answers(texts, np.zeros((1, 8), dtype=bool), [""])
    judge.verdict([PROMPT], answers, lambda done, total, **_: totals.add(total))
    label = "`llm_judge`" if opponents is None else "`llm_judge` with `opponents: 3`"
    assert totals == {inputs} == {costs.calls(CASES[label])}
    assert costs.calls(CASES[label.replace("llm_judge", "pairrm")]) == inputs


def test_an_ensemble_takes_the_sum():
    members = [dict(CASES[label].settings) for label in ("`verifier`", "`openai`, `mode: ranks`")]
    assert costs.calls(costs.Case("", {"name": "ensemble", "judges": members})) == 8 + 2


def test_tokens_by_hand():
    """A pair is a prompt of 100, two responses of 200 and the judge's text, of four characters a token."""
    assert costs.tokens_read(CASES["`pairrm`"]) == 56 * 500
    assert costs.tokens_read(CASES["`reward_model`"]) == 8 * 300
    own = CASES["`llm_judge`"].template
    assert costs.tokens_read(CASES["`llm_judge`"]) == 56 * (500 + len(own) // 4)
    assert costs.tokens_read(CASES["`verifier`"]) == 0


def test_every_judge_is_in_the_table():
    from components.config import registry

    assert {case.settings["name"] for case in costs.CASES} == set(registry.names("judges")) - {"ensemble"}


def test_the_page_has_the_table_of_now():
    page = (ROOT / "docs" / "judges.md").read_text("utf-8")
    assert f"<!-- costs: make docs -->\n{costs.table()}<!-- end of costs -->" in page, "make docs"
