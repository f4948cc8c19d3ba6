"""An endpoint that fails, is slow or talks nonsense, settings that cannot be used, and a key that nobody may read."""

from __future__ import annotations

import builtins
import json
import math
import threading
import time
from datetime import date

import pytest

from components.config import registry
from components.config.errors import ConfigError, JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge
from support.loopback_server import Answer, said, serving

pytestmark = pytest.mark.thorough

pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")

KEY = "sk-test-0123456789"
PROMPTS = [Prompt("one", ({"role": "user", "content": "p"},))]
PAIR = [["x", "y"]]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def judge(address, **settings):
    own = {"base_url": f"{address}/v1", "model": "m", "retries": 2, "timeout": 60.0, "concurrency": 1, **settings}
    return build("judges", {"name": "openai", **own}, Judge)


def failing(times, answer):
    """`answer` to the first requests, and verdicts A to all others."""
    return lambda _, number: answer if number < times else said("A")


def refusal(address, **settings):
    with pytest.raises(JudgeError) as raised:
        judge(address, **settings).judge(PROMPTS, PAIR)
    assert KEY not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_passes_is_asked_again(status):
    with serving(failing(2, Answer({"error": {"message": "busy"}}, status))) as server:
        begin = time.monotonic()
        judgement = judge(server.address).judge(PROMPTS, PAIR)
    assert len(server.bodies) == 4
    assert judgement.usage["requests"] == 2
    assert time.monotonic() - begin > 0.375 + 0.75  # 0.5 and 1 s, less a quarter at most


def test_the_endpoint_says_when_to_ask_again():
    with serving(failing(1, Answer({"error": {}}, 429, {"Retry-After": "2"}))) as server:
        begin = time.monotonic()
        judge(server.address).judge(PROMPTS, PAIR)
    assert time.monotonic() - begin >= 2


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (429, r"Lower judge.concurrency (1) or raise judge.retries (0)."),
        (500, r"See what the server says, or raise judge.retries (0)."),
        (401, r"Give a key that it takes in the environment variable of judge.api_key_env (OPENAI_API_KEY)."),
        (404, r"Correct judge.model (m) or judge.base_url; it usually ends in /v1."),
        (400, r"judge.top_logprobs: 0"),
        (422, r"judge.max_tokens: null"),
    ],
)
def test_what_does_not_pass_says_what_to_do(status, remedy):
    answer = Answer({"error": {"message": f"no: {KEY}"}}, status)
    with serving(lambda *_: answer) as server:
        message = refusal(server.address, retries=0)
    assert message.startswith(f"prompt 'one', responses 0 and 1: {server.address}/v1 answers with status {status}: ")
    assert "no: …" in message
    assert remedy in message
    assert len(server.bodies) == 1


def test_a_slow_endpoint():
    """Its answer comes when nobody waits for it any more."""
    over = threading.Event()

    def answer(_, number):
        if number == 0:
            over.wait(120)
        return said("A")

    with serving(answer) as server:
        assert judge(server.address, timeout=2.0).judge(PROMPTS, PAIR).usage["requests"] == 2
        over.set()
        assert len(server.bodies) == 3
    over.clear()
    with serving(lambda *_: over.wait(120) and said("A")) as server:
        message = refusal(server.address, timeout=0.2, retries=1)
        over.set()
    assert "gives no answer within judge.timeout, 0.2 s, tried 2 times." in message


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        b'{"choices": [',
        b"",
        b"[]",
        {"choices": []},
        {"choices": [{"text": "A"}]},
        {"object": "error", "message": "no such model"},
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_what_is_no_completion_is_shown(body, kind):
    with serving(lambda *_: Answer(body, headers={"Content-Type": kind})) as server:
        message = refusal(server.address)
    assert f"what {server.address}/v1 answers is no chat completion: " in message
    assert "Correct judge.base_url; it usually ends in /v1." in message


def test_a_connection_that_breaks_off_is_made_again():
    """The header promises more than comes."""
    whole = said("A")
    broken = Answer(json.dumps(whole).encode()[:20], headers={"Content-Length": "5000", "Connection": "close"})
    with serving(failing(1, broken)) as server:
        judge(server.address).judge(PROMPTS, PAIR)
    assert len(server.bodies) == 3


@pytest.mark.parametrize("choice", [{"content": None}, {"content": None, "refusal": "I cannot."}, {"content": "  "}])
def test_an_answer_without_words_is_no_verdict(choice):
    answer = {"choices": [{"message": choice, "finish_reason": "content_filter"}]}
    with serving(lambda *_: answer) as server:
        assert judge(server.address, max_unparsed=1.0).judge(PROMPTS, PAIR).preference[0, 0, 1] == 0.5
        assert "finish_reason content_filter" in refusal(server.address)


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": 0, "total_tokens": None}]
)
def test_an_endpoint_that_counts_no_tokens(usage):
    top = {"token": "A", "logprob": -0.1, "top_logprobs": None}
    with serving(lambda *_: {**said("A"), "usage": usage}) as server:
        found = judge(server.address).judge(PROMPTS, PAIR)
    assert found.usage == {"requests": 2, "unparsed": 0}  # 0 tokens would be taken for a figure
    choice = {**said("A")["choices"][0], "logprobs": {"content": [top]}}
    with serving(lambda *_: {"choices": [choice]}) as server:
        assert judge(server.address).judge(PROMPTS, PAIR).preference[0, 0, 1] == 0.5  # A is the first shown, twice


def test_nobody_listens():
    with serving(lambda *_: said("A")) as server:
        address = server.address
    message = refusal(address, retries=1)
    assert f"{address}/v1 cannot be reached" in message
    assert "tried 2 times. See whether the server runs, correct judge.base_url" in message


def test_of_several_errors_the_first_counts():
    with serving(lambda *_: Answer({"error": "x"}, 400)) as server:
        assert refusal(server.address, concurrency=8).startswith("prompt 'one', responses 0 and 1:")


def test_an_environment_without_the_client(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "Run pip install -r requirements-openai.txt" in refusal("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"base_url": "localhost:8000"},
            "base_url: 'localhost:8000' is no address. Write it as in http://localhost:8000/v1.",
        ),
        ({"base_url": "http://:80"}, "base_url: 'http://:80' is no address."),
        ({"base_url": "http://host:x"}, "base_url: 'http://host:x' is no address"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url: holds a user or a password, and configs are stored."),
        ({"api_key_env": KEY}, "api_key_env: is no name of an environment variable in capital letters"),
        ({"api_key_env": "gsk_abc"}, "Write the name of the variable that holds the key, never the key itself"),
        ({"api_key": KEY}, "api_key: unknown key. Did you mean 'api_key_env'?"),
        ({"mode": "rank"}, "mode: 'rank' cannot be used."),
        ({"model": ""}, "model: '' cannot be used."),
        ({"prompt": "{prompt} {response_a}"}, "prompt: '{prompt} {response_a}' lacks {response_b}."),
        ({"mode": "scores", "prompt": "{prompt}"}, "prompt: '{prompt}' lacks {response}."),
        ({"mode": "scores", "opponents": 2}, "opponents: 2 belongs to mode: pairs"),
        ({"mode": "ranks", "opponents": 2}, "opponents: 2 belongs to mode: pairs"),
        ({"mode": "ranks", "prompt": "{prompt} {response}"}, "prompt: '{prompt} {response}' lacks {responses}."),
        ({"request": {"max_tokens": 5}}, "request: 'max_tokens' is set by the judge itself. Use judge.max_tokens."),
        ({"mode": "scores", "verdicts": ["X", "Y"]}, "verdicts: ['X', 'Y'] belongs to mode: pairs, scores need none."),
        ({"mode": "pairs", "scale": [1.0, 5.0]}, "scale: [1.0, 5.0] belongs to mode: scores"),
        ({"mode": "ranks", "score_temperature": 2.0}, "score_temperature: 2.0 belongs to mode: scores"),
        ({"verdicts": ["A\n", "B"]}, "cannot be read from an answer"),
        ({"verdicts": ["A", "A"]}, "verdicts: ['A', 'A'] cannot be read from an answer. Write two different words"),
        ({"verdicts": ["[[A]]", "[[B]]"]}, "without marks around"),
        ({"verdicts": ["A"]}, "verdicts: ['A'] cannot be used."),
        ({"scale": [10.0, 1.0]}, "scale: [10.0, 1.0] is no scale. Write the worst score, and then a greater one"),
        ({"scale": [0.0, 1e101]}, "scale: [0.0, 1e+101] leaves the range of scores. Use -1e+100 to 1e+100."),
        ({"scale": [1.0]}, "scale: [1.0] cannot be used."),
        ({"max_tokens": 0}, "max_tokens: 0 cannot be used."),
        ({"temperature": -1.0}, "temperature: -1.0 cannot be used."),
        ({"top_logprobs": 21}, "top_logprobs: 21 cannot be used."),
        ({"concurrency": 0}, "concurrency: 0 cannot be used."),
        ({"retries": -1}, "retries: -1 cannot be used."),
        ({"timeout": 0.0}, "timeout: 0.0 cannot be used."),
        ({"max_unparsed": 1.5}, "max_unparsed: 1.5 cannot be used."),
        ({"score_temperature": 0.0}, "score_temperature: 0.0 cannot be used."),
        ({"price_in": 1.0}, "price_in: belongs together with price_out. Give both, or none."),
        ({"price_in": -1.0, "price_out": 1.0}, "price_in: -1.0 cannot be used."),
        ({"price_in": 1e308, "price_out": 1.0}, "price_in: 1e+308 cannot be used. Input should be less than or equal"),
        ({"price_in": 1.0, "price_out": 1.1e9}, "price_out: 1100000000.0 cannot be used."),
        ({"request": {"a": {"b": [math.nan]}}}, "request: cannot be sent as JSON"),
        ({"request": {"day": date(2026, 1, 1)}}, "request: cannot be sent as JSON"),
        ({"request": {"stream": True}}, "request: 'stream' is set by the judge itself."),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError) as raised:
        registry.resolve("judges", {"name": "openai", "model": "m", **settings}, Judge)
    assert message in str(raised.value)
    assert KEY not in str(raised.value)
    assert "secret" not in str(raised.value)
