"""The judge `openai` at an endpoint in the test's process: verdicts and scores, what cannot be read, what it took."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judges._chat import Reply
from components.judges._verdicts import first_wins, score
from support.loopback_server import said, serving

pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")

KEY = "sk-test-0123456789"
PROMPTS = [Prompt("one", ({"role": "user", "content": "first?"},)), Prompt("two", ({"role": "user", "content": "2?"},))]
RESPONSES = [["good", "bad", "ugly"], ["bad", "bad", "good"]]
WORTH = {"good": 3, "bad": 2, "ugly": 1, "4": 2, "5": 1}
ASK = "{prompt}|{response_a}|{response_b}"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def judge(server, **settings):
    own = {"base_url": f"{server.address}/v1", "model": "m", "prompt": ASK, "retries": 1, "timeout": 60.0, **settings}
    return build("judges", {"name": "openai", **own}, Judge)


def asked(body):
    return body["messages"][0]["content"].split("|")


def better(body, number):
    """A for a better response a, B for all else: the one shown second wins ties."""
    _, a, b = asked(body)
    return said("A" if WORTH[a] > WORTH[b] else "B")


def test_hard_verdicts_in_both_orders_are_averaged():
    with serving(better) as server:
        judgement = judge(server, top_logprobs=0).judge(PROMPTS, RESPONSES)
    assert judgement.preference.tolist() == [
        [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]],
        [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1.0, 1.0, 0.5]],
    ]
    assert np.isnan(judgement.reward).all()
    assert "logprobs" not in server.bodies[0]


def test_equal_requests_are_sent_once_and_tokens_are_counted():
    with serving(better) as server:
        judgement = judge(server, price_in=2.0, price_out=10.0).judge(PROMPTS, RESPONSES)
    # 6 of the first prompt; of the second bad|bad, bad|good and good|bad
    assert len(server.bodies) == 9
    assert judgement.usage == {
        "requests": 9,
        "unparsed": 0,
        "tokens_in": 99,
        "tokens_out": 9,
        "cost": pytest.approx((99 * 2 + 9 * 10) / 1e6),
    }


def test_log_probs_become_the_preference():
    tops = {"A": math.log(0.6), " A": math.log(0.1), "B": math.log(0.1), "Bee": math.log(0.2)}
    with serving(lambda body, _: said("A", tops=tops)) as server:
        found = judge(server).compare_pairs(PROMPTS[:1], [["good", "bad"]], [(0, 0, 1)])
    assert found.probability.tolist() == pytest.approx([0.7 / 0.8])  # (0.6 + 0.1) / (0.6 + 0.1 + 0.1)


def test_what_is_sent():
    settings = {"temperature": None, "max_tokens": None, "request": {"max_completion_tokens": 4}, "top_logprobs": 5}
    with serving(better) as server:
        judge(server, **settings).judge(PROMPTS[:1], [["good", "bad"]])
    first = min(server.bodies, key=json.dumps)
    assert first == {
        "model": "m",
        "messages": [{"role": "user", "content": "first?|bad|good"}],
        "max_completion_tokens": 4,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert server.paths == ["/v1/chat/completions"] * 2
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_marks_of_turns_in_a_response_are_blanked():
    with serving(lambda *_: said("A")) as server:
        judge(server).judge(PROMPTS[:1], [["a<|im_end|>b</s>c", "x < y | z > 0"]])
    assert sorted(map(asked, server.bodies)) == sorted(
        [["first?", "a b c", "x < y ", " z > 0"], ["first?", "x < y ", " z > 0", "a b c"]]
    )


def test_an_endpoint_without_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(better) as server:
        judge(server, api_key_env=None).check()
        with pytest.raises(JudgeError, match=r"judge\.api_key_env: the environment variable OPENAI_API_KEY is not set"):
            judge(server).check()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-abc…\ndef")
        with pytest.raises(JudgeError, match=r"OPENAI_API_KEY holds spaces or characters beyond ASCII") as raised:
            judge(server).check()
    assert "abc" not in str(raised.value)
    assert len(server.bodies) == 1  # one question


def test_scores_compare_as_bradley_and_terry_do():
    prompt = "{prompt}|{response}|{low}|{high}"
    settings = {"mode": "scores", "prompt": prompt, "scale": [0.0, 5.0], "score_temperature": 2.0}
    with serving(lambda body, _: said(f"Score: {WORTH[asked(body)[1]]}/5")) as server:
        made = judge(server, **settings)
        judgement = made.judge(PROMPTS[:1], [["good", "bad", "ugly"]])
        cut_off = Answers([["good", "bad", "ugly"]], np.array([[True, False, False]]), [""])
        lowered = judge(server, **settings, truncated_penalty=1.0).verdict(PROMPTS[:1], cut_off)
    assert sorted(map(asked, server.bodies))[0] == ["first?", "bad", "0", "5"]
    assert judgement.reward.tolist() == [[3.0, 2.0, 1.0]]
    assert judgement.preference[0, 0, 2] == pytest.approx(1 / (1 + math.exp(-(3 - 1) / 2)))
    assert lowered.reward.tolist() == [[2.0, 2.0, 1.0]]
    assert lowered.preference[0, 0].tolist() == pytest.approx([0.5, 0.5, 1 / (1 + math.exp(-1 / 2))])
    assert made.has_scores
    assert made.model_inputs(2, 8) == 16


def test_a_score_that_cannot_be_read_ties():
    answers = {"good": "10", "bad": "no idea", "ugly": "4"}
    settings = {"mode": "scores", "prompt": "{prompt}|{response}", "max_unparsed": 0.5}
    with serving(lambda body, _: said(answers[asked(body)[1]])) as server:
        judgement = judge(server, **settings).judge(PROMPTS[:1], [["good", "bad", "ugly"]])
    assert judgement.reward.tolist() == [[10.0, 7.0, 4.0]]
    assert judgement.preference[0, 1].tolist() == [0.5, 0.5, 0.5]
    assert judgement.preference[0, 0, 2] == pytest.approx(1 / (1 + math.exp(-6)))
    assert judgement.usage["unparsed"] == 1


def test_verdicts_that_cannot_be_read_tie_up_to_a_share():
    """1 of 6: bad against ugly wins in one order and ties in the other."""

    def answer(body, number):
        return said("Both are fine.") if asked(body)[1:] == ["bad", "ugly"] else better(body, number)

    with serving(answer) as server:
        judgement = judge(server, max_unparsed=0.17).judge(PROMPTS[:1], RESPONSES[:1])
        assert judgement.preference[0, 1, 2] == 0.75
        assert judgement.usage["unparsed"] == 1
        with pytest.raises(JudgeError) as raised:
            judge(server, max_unparsed=0.16).judge(PROMPTS[:1], RESPONSES[:1])
    message = str(raised.value)
    assert message.startswith("judge.max_unparsed: 1 of 6 answers are not 'A' or 'B', more than the share of 0.16.")
    assert "prompt 'one', responses 1 and 2: m says 'Both are fine.'." in message


def test_check_shows_what_a_thinking_model_said():
    with (
        serving(lambda *_: said("<think> Well", finish="length")) as server,
        pytest.raises(JudgeError, match=r"says '<think> Well' and ends with finish_reason length\."),
    ):
        judge(server).check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", 1.0),
        (" B\n", 0.0),
        ("**A**", 1.0),
        ("[[B]]", 0.0),
        ("Verdict: A.", 1.0),
        ("Response B", 0.0),
        ("A\n\nBecause it is correct.", 1.0),
        ("Both are polite, but only one is correct.\n\nVerdict: **B**", 0.0),
        ("<think>A is long. B</think>\nA", 1.0),
        ("A good one", None),
        ("A\n\nVerdict: B", None),
        ("a", None),
        ("AB", None),
        ("Neither", None),
        ("", None),
        ("<think>A", None),
    ],
)
def test_what_is_a_verdict(text, expected):
    assert first_wins(Reply(text, "stop"), ["A", "B"]) == expected


def test_the_verdicts_own_place_counts():
    """Of `A or B?` before it the tokens do not."""
    tokens = [
        ("A", {"A": -0.1}),
        (" or", {}),
        (" B", {"B": -0.1}),
        ("\n", {}),
        ("B", {"B": math.log(0.6), "A": math.log(0.2)}),
    ]
    assert first_wins(Reply("A or B\nB", "stop", tokens), ["A", "B"]) == pytest.approx(0.2 / 0.8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7.0),
        ("**7.5**", 7.5),
        ("Score: 7/10", 7.0),
        ("Rating 3 out of 10.", 3.0),
        ("8\nIt is good.", 8.0),
        ("11", None),
        ("-1", None),
        ("7 or 8", None),
        ("7\n8", None),
        ("seven", None),
        ("", None),
    ],
)
def test_what_is_a_score(text, expected):
    assert score(Reply(text, "stop"), [1.0, 10.0]) == expected


def test_settings_of_speed_and_money_decide_nothing():
    made = build("judges", {"name": "openai", "model": "m"}, Judge)
    assert {"concurrency", "retries", "timeout", "price_in", "price_out", "api_key_env"}.isdisjoint(made.deciding())
    assert made.deciding()["model"] == "m"
    assert KEY not in json.dumps(made.model_dump())
