"""Judges behind a URL whose answers do not end: `judge.timeout` bounds all of one, and nothing fills the memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.config.errors import JudgeError
from components.judges import _bounded
from support.dripping_server import dripping
from support.endpoint_judges import NAMES, PAIR, PROMPTS, asking
from support.loopback_server import Answer, said, serving

ROOT = Path(__file__).parents[2]
LIMIT = 0.5  # seconds; a drop comes each twentieth of one
KEY = "sk-test-0123456789"
SENT = {"status": b"HTTP/1.1 200 ", "headers": b"HTTP/1.1 200 OK\r\nX-Long: "} | {
    name: line + b"\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    for name, line in {"body": b"HTTP/1.1 200 OK", "error": b"HTTP/1.1 400 No", "busy": b"HTTP/1.1 503 Busy"}.items()
}


@pytest.fixture(params=NAMES)
def judge(request, monkeypatch):
    """`judge(address)`: one that asks a single question."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return asking(request.param, api_key_env="OPENAI_API_KEY", timeout=LIMIT, retries=0)


@pytest.mark.parametrize("place", SENT)
@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_limit_is_that_of_the_whole_answer(judge, place, concurrency, wait_for):
    with dripping(SENT[place], b" ", every=0.05) as (address, closed):
        begin = time.monotonic()
        with pytest.raises(JudgeError, match=r"0\.5 s.* judge\.retries|timed out.*judge\.timeout \(0\.5 s\)"):
            judge(address, concurrency=concurrency).judge(PROMPTS, PAIR)
        took = time.monotonic() - begin
        wait_for(lambda: len(closed) >= 1)
    assert LIMIT <= took < 20


def test_each_time_it_is_asked_again_has_a_limit_of_its_own(judge):
    with dripping(SENT["body"], b" ", every=0.05) as (address, _):
        begin = time.monotonic()
        with pytest.raises(JudgeError, match="tried 2 times"):
            judge(address, retries=1).check()
    assert time.monotonic() - begin >= 2 * LIMIT


@pytest.mark.parametrize("status", [b"200 OK", b"400 No"])
def test_an_answer_without_end_is_given_up_before_it_fills_the_memory(judge, status, wait_for):
    head = b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n"
    with dripping(head, b" " * 2**20, every=0.0) as (address, closed):
        with pytest.raises(JudgeError, match="answers with more than 64 MiB"):
            judge(address, timeout=120.0, retries=5).check()
        wait_for(lambda: len(closed) == 1)  # it is not asked again


def test_few_bytes_cannot_become_many(judge, monkeypatch):
    monkeypatch.setattr(_bounded, "LARGEST", 2**20)
    answer = Answer(gzip.compress(b" " * 2**24), headers={"Content-Encoding": "gzip"})
    with serving(lambda *_: answer) as server, pytest.raises(JudgeError, match="answers with more than 1 MiB"):
        judge(server.address, timeout=120.0).check()


def test_packed_answers_are_read(judge):
    """Each judge finds its own answer in it: equal scores, and a verdict for the one shown first."""
    whole = json.dumps({"scores": [2.0, 2.0], **said("A")}).encode()
    answer = Answer(gzip.compress(whole), headers={"Content-Encoding": "gzip"})
    with serving(lambda *_: answer) as server:
        found = judge(server.address, timeout=120.0).judge(PROMPTS, PAIR)
    assert found.preference.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_is_sent_to_no_other_server(judge, status):
    with serving(lambda *_: said("A")) as other:
        elsewhere = Answer({}, status, {"Location": f"{other.address}/v1/chat/completions"})
        with serving(lambda *_: elsewhere) as server, pytest.raises(JudgeError, match=rf"status {status}: .* Correct"):
            judge(server.address, timeout=120.0).judge(PROMPTS, PAIR)
        assert other.bodies == []
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "nonsense://host:1"), ("HTTP_PROXY", "http://host:port"), ("SSL_CERT_FILE", "/no/such/file.pem")],
)
def test_an_environment_that_no_client_can_use(judge, name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(JudgeError, match=rf"^judge: what the environment says .*{name}"):
        judge("http://127.0.0.1:9").judge(PROMPTS, PAIR)


def test_the_judge_http_needs_no_openai():
    program = (
        "import sys; sys.modules['openai'] = None\n"
        "from components.judges.http import HttpJudge\n"
        "HttpJudge(url='http://127.0.0.1:9', retries=0).check()"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False, text=True)
    assert "gives no answer (Connection refused), tried 1 times." in result.stderr
