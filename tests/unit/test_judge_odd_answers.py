"""Answers that are legal and odd, or neither: log-probs beside thinking, impossible numbers, bodies packed in parts."""

from __future__ import annotations

import gzip
import json
import math
import time

import pytest

from components.config.errors import JudgeError
from components.judges._chat import Reply
from components.judges._secrets import without
from components.judges._thinking import MARKS, cut
from components.judges._verdicts import first_wins, score
from support.endpoint_judges import PAIR, PROMPTS, asking
from support.loopback_server import Answer, said, serving


def reply(*tokens: str | tuple[str, float]) -> Reply:
    """An answer of these tokens; beside a token A its probability, the rest is B's."""
    told = []
    for one in tokens:
        token, a = one if isinstance(one, tuple) else (one, None)
        told.append((token, {} if a is None else {"A": math.log(a), "B": math.log(1 - a)}))
    return Reply(text="".join(token for token, _ in told), finish="stop", tokens=told, tokens_in=1, tokens_out=1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply("<think>", "Is ", ("A", 0.02), " better", "?", "</think>", "\n\n", ("A", 0.99)), 0.99),
        (reply("<think>\n", ("A", 0.02), "\n", "</think>", ("A", 0.9)), 0.9),
        (reply("Response ", ("A", 0.6), " vs ", "B", ": ", ("A", 0.9)), 0.9),
        (reply(("A", 0.7)), 0.7),
        (reply(("A", 0.7), "\nbecause ", ("A", 0.1), " is short"), 0.7),
        (reply("I compare ", ("A", 0.1), " and B.\n", "Verdict", ": ", ("A", 0.8), ".\n"), 0.8),
        (reply("**A", "**"), 1.0),  # no token is the verdict alone
    ],
)
def test_a_verdicts_log_probs_are_those_of_its_place(answer, expected):
    assert first_wins(answer, ["A", "B"]) == pytest.approx(expected, abs=1e-12)


def test_thinking_in_a_hundred_thousand_parts():
    assert cut("<think></think>" * 100_000 + "A", *MARKS) == "A"
    assert cut("a<think>b</think> \n c<think>d", *MARKS) == "ac"


@pytest.fixture
def judged(monkeypatch):
    """`judged(name, answer)`: the preferences or scores of one pair by the judge `name`, which asks twice at most."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")

    def run(name, answer):
        with serving(answer) as server:
            made = asking(name, retries=2, timeout=30.0)(server.address)
            return made.judge(PROMPTS, PAIR)

    return run


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "logprob"), "1000"),
        (("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "logprob"), "NaN"),
        (("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "logprob"), "Infinity"),
        (("usage", "prompt_tokens"), "1" + "0" * 400),
        (("usage", "prompt_tokens"), "-5"),
        (("usage", "completion_tokens"), "1e300"),
    ],
)
def test_numbers_that_cannot_be_are_no_completion(judged, path, value):
    pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")
    place = {"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "A", "logprob": -0.1}]}
    whole = {
        "choices": [{"message": {"content": "A"}, "finish_reason": "stop", "logprobs": {"content": [place]}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    inside = whole
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = "HERE"
    body = json.dumps(whole).replace('"HERE"', value).encode()
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1"):
        judged("openai", lambda *_: Answer(body, headers={"Content-Type": "application/json"}))


def test_a_packed_body_in_two_members_is_read_whole(judged):
    body = gzip.compress(b'{"scores": [0.25, ') + gzip.compress(b"0.5]}") + b"\0\0"
    found = judged("http", lambda *_: Answer(body, headers={"Content-Encoding": "gzip"}))
    assert found.reward.tolist() == [[0.25, 0.5]]


def test_a_packed_body_that_ends_early_is_asked_for_again(judged):
    asked = []

    def answer(*_):
        asked.append(1)
        body = gzip.compress(b'{"scores": [0.25, 0.5]}')
        return Answer(body[:-9] if len(asked) == 1 else body, headers={"Content-Encoding": "gzip"})

    judged("http", answer)
    assert len(asked) == 2


def test_a_vendors_header_does_not_decide_what_is_asked_again(judged):
    pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")
    asked = []

    def answer(*_):
        asked.append(1)
        if len(asked) == 1:
            return Answer(b"{}", status=503, headers={"x-should-retry": "false", "Retry-After": "1_0"})
        return said("A")

    judged("openai", answer)
    assert len(asked) >= 2


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("```\nA\n```", 1.0),
        ("```text\nB\n```", 0.0),
        ("结论：A", 1.0),
        ("“B”。", 0.0),
        ("【A】", 1.0),
        ("A\n---\nB", None),
        ('{\n "reason": "x",\n "winner": "A",\n "loser": "B"\n}', None),
        ('```json\n{\n "winner": "A",\n "loser": "B"\n}\n```', None),
    ],
)
def test_verdicts_in_blocks_and_wide_marks(answer, read):
    assert first_wins(Reply(answer, "stop"), ("A", "B")) == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("7/10", 7.0),
        ("Score：7", 7.0),
        ("7/100", None),
        ("3 out of 5", None),
        ("```\n8\n```", 8.0),
        ("11/10", None),
        ("Out of 10: 8", 8.0),
        (".5", None),
        ("<7", None),
        ("7:10", None),
        ('{\n "score": 3,\n "sure": 9\n}', None),
    ],
)
def test_a_score_is_of_the_scale_that_was_asked_for(answer, read):
    assert score(Reply(answer, "stop"), (1.0, 10.0)) == read


@pytest.mark.parametrize(
    "written",
    [
        r"\u0073k-a/b\u002bc",
        r"s\x6b-a\/b&#43;c",
        "sk&#x2d;a/b+c",
        "sk-a\\/b+c",
        "sk-a%2fb%2bc",
        "sk-a%2Fb%2Bc",
        "c2stYS9iK2M=",
        "sk-a/b+c",
    ],
)
def test_a_key_in_other_writing(written):
    assert without("sk-a/b+c", f"your key {written} is wrong") == "your key … is wrong"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sk-proj-0123456789abcdefghijklmnopqrstuvwxyz", 2000 * "sk-proj-0123456789abcdefghijklmnopqrstuvwxy*"),
        (40 * "a" + "b", 100_000 * "a"),
        (4 * "\\-" + "b", 10_000 * (8 * "\\" + "-")),
        (20 * "\\", 50_000 * "\\u005"),
        ("sk-a/b", 10**6 * "\\"),
    ],
)
def test_what_is_almost_the_key_takes_no_longer(key, text):
    begin = time.process_time()
    without(key, text)
    assert time.process_time() - begin < 10  # where alternatives overlapped: days
