"""Servers that send the key back: in scores, names, reasons to stop, errors, and what is no HTTP at all."""

from __future__ import annotations

import json

import pytest

from components.config.registry import build
from components.judges import Judge
from support.dripping_server import dripping
from support.endpoint_judges import NAMES, asking, refusal
from support.loopback_server import Answer, said, serving

pytestmark = pytest.mark.thorough

KEY = "sk_test_0123456789"  # a name as well
LONG = "z" * 200_000


@pytest.fixture(params=NAMES)
def judge(request, monkeypatch):
    """`judge(address)`: one that asks a single question at a time."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return asking(request.param, api_key_env="OPENAI_API_KEY", timeout=60.0, retries=0)


def http_answers():
    """Answers of the contract, and near it, with the key in each place."""
    scores = {"scores": [1, 2]}
    yield {"scores": [KEY, 1]}
    yield {"scores": KEY}
    yield {"scores": [1, {"why": KEY}]}
    yield {"scores": [1, 2], KEY: 1, "parts": [KEY]}
    yield {KEY: [1, 2]}
    for name in (KEY, f"{KEY} {LONG}", LONG, f"{LONG}{KEY}"):
        yield {**scores, "parts": {name: [1]}}
        yield {**scores, "parts": {name: ["no", 1]}}
        yield {**scores, "parts": {f"{name}-": [1, 2]}}
        yield {**scores, "parts": {f"{name}_low": [1, 2]}}
    yield {**scores, "parts": {KEY: [1, 2]}}
    yield {**scores, "parts": {"a": [KEY, LONG]}}
    yield json.dumps({"scores": [KEY, 1]}).replace("s", r"\u0073").replace(r"\u0073core\u0073", "scores").encode()
    yield f"{LONG}{KEY}".encode()


def openai_answers():
    """Completions, and what is near them, with the key in each place."""
    yield said(KEY)
    yield said("?", finish=KEY)
    yield said("?", finish=f"{LONG}{KEY}")
    yield said(f"{'y' * 195}{KEY}")
    yield said(LONG)
    yield {"choices": KEY}
    yield f"{LONG}{KEY}".encode()


@pytest.mark.parametrize("kind", [f"{name}-{i}" for name, n in (("http", 25), ("openai", 7)) for i in range(n)])
def test_the_key_and_long_texts_stand_in_no_message(monkeypatch, kind):
    name, number = kind.split("-")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if name == "openai":
        pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")
    answers = list(http_answers() if name == "http" else openai_answers())
    assert len(answers) == (25 if name == "http" else 7)
    with serving(lambda *_: answers[int(number)]) as server:
        own = {"url": server.address} if name == "http" else {"base_url": server.address, "model": "m"}
        message = refusal(build("judges", {"name": name, "api_key_env": "OPENAI_API_KEY", **own}, Judge))
    assert KEY not in message
    assert KEY[:12] not in message
    assert len(message) < 1200


@pytest.mark.parametrize("written", [KEY, f"Bearer {KEY}", f"{LONG}{KEY}", f"{'y' * 190}{KEY}"])
def test_the_key_stands_in_no_message_of_an_error(judge, written):
    for status in (400, 401, 404, 500):
        with serving(lambda *_, status=status: Answer({"error": {"message": written}}, status)) as server:
            message = refusal(judge(server.address))
        assert f"answers with status {status}" in message
        assert KEY[:12] not in message
        assert len(message) < 1000


@pytest.mark.parametrize("line", [f"HTTP/1.1 400 {KEY}", f"HTTP/1.1 {KEY}", f"{KEY}", "y" * 50_000 + KEY])
def test_the_key_in_what_is_no_http(judge, line):
    with dripping(f"{line}\r\nContent-Length: 0\r\n\r\n".encode(), b"", every=0.05) as (address, _):
        message = refusal(judge(address, timeout=2.0))
    assert KEY[:12] not in message
    assert len(message) < 1000


@pytest.mark.parametrize("key", ["a/b+c=d&e'f\"g\\h", "0123456789<abc>%2F"])
@pytest.mark.parametrize("how", ["plain", "json", "url", "html"])
def test_keys_with_signs_that_are_written_otherwise(judge, monkeypatch, key, how):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    said_so = {
        "plain": key,
        "json": json.dumps(key),
        "url": "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in key),
        "html": key.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#x27;"),
    }[how]
    with serving(lambda *_: Answer(said_so.encode(), 400)) as server:
        assert "status 400: '…'" in refusal(judge(server.address)).replace("'\"…\"'", "'…'")
