"""Answers packed to take long, name servers that hang, and sets of signs that nobody knows."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from components.config import registry
from components.config.errors import ConfigError
from components.config.registry import build
from components.judges import Judge
from support.endpoint_judges import NAMES, PAIR, PROMPTS, asking, refusal
from support.loopback_server import Answer, said, serving

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
KEY = "sk-test-0123456789"
LONG = "z" * 200_000


@pytest.fixture(params=NAMES)
def judge(request, monkeypatch):
    """`judge(address)`: one that asks a single question at a time."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return asking(request.param, api_key_env="OPENAI_API_KEY", timeout=60.0, retries=0)


def packed(times, body):
    for _ in range(times):
        body = gzip.compress(body)
    return body


def test_an_answer_packed_several_times_is_refused_at_once(judge):
    """Of these 10 kB, 5 GB would come."""
    bomb = packed(2, b" " * 2**26)
    for coding in ("gzip, gzip, gzip", "br", "deflate", LONG):
        with serving(lambda *_, name=coding: Answer(bomb, headers={"Content-Encoding": name[:50_000]})) as server:
            begin = time.monotonic()
            message = refusal(judge(server.address, timeout=5.0, retries=3))
        assert "answers with a body packed as '" + coding[:20] in message
        assert "where gzip alone was asked for" in message
        assert time.monotonic() - begin < 5
        assert len(server.bodies) == 1
        assert len(message) < 1000


def test_what_takes_long_to_unpack_is_given_up_in_time(judge):
    """Blocks that hold nothing: 60 MB of work, a tenth of a second at the least, that gives no byte."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = packing.compress(bytes(range(256)) * 4) + packing.flush(zlib.Z_FULL_FLUSH)
    head = gzip.compress(b"")[:10]
    body = head + b"\x00\x00\x00\xff\xff" * (12 * 2**20) + whole  # empty stored blocks, 60 MB of them
    with serving(lambda *_: Answer(body, headers={"Content-Encoding": "gzip"})) as server:
        begin = time.monotonic()
        message = refusal(judge(server.address, timeout=0.03))
    assert "0.03 s" in message or "timed out" in message
    assert time.monotonic() - begin < 3


def test_a_damaged_answer_is_asked_for_again(judge):
    whole = gzip.compress(json.dumps({"scores": [2.0, 2.0], **said("A")}).encode())
    broken = Answer(whole[:10] + b"\xff" * 40, headers={"Content-Encoding": "gzip"})
    good = Answer(whole, headers={"Content-Encoding": "gzip"})
    with serving(lambda _, number: broken if number == 0 else good) as server:
        assert judge(server.address, retries=1).judge(PROMPTS, PAIR).preference.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    with serving(lambda *_: broken) as server:
        message = refusal(judge(server.address))
    assert "while decompressing" in message


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_name_server_that_hangs_delays_neither_the_error_nor_the_end(concurrency):
    """The resolver is stood in for: a machine's own cannot be made to hang."""
    program = (
        "import socket, time\n"
        "socket.getaddrinfo = lambda *_, **__: time.sleep(40)\n"
        "from components.data.records import Prompt\n"
        "from components.judges.http import HttpJudge\n"
        "prompts = [Prompt(str(i), ({'role': 'user', 'content': str(i)},)) for i in range(4)]\n"
        f"own = {{'retries': 1, 'timeout': 0.3, 'batch_size': 1, 'concurrency': {concurrency}}}\n"
        "judge = HttpJudge(url='http://host.test', **own)\n"
        "judge.judge(prompts, [['x', 'y']] * 4)\n"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False, text=True)
    assert "gives no answer (timed out), tried 2 times." in done.stderr
    assert time.monotonic() - begin < 20


CHARSETS = ["base64", "rot13", "utf-16", "no-such", '"utf-8"', "'hex'", "undefined", "", "a" * 500]


@pytest.mark.parametrize("charset", CHARSETS)
def test_an_answer_is_utf_8_whatever_it_claims(judge, charset):
    kind = {"Content-Type": f"application/json; charset={charset}"}
    whole = json.dumps({"scores": [2.0, 2.0], **said("A")}).encode()
    with serving(lambda *_: Answer(whole, headers=kind)) as server:
        assert judge(server.address).judge(PROMPTS, PAIR).preference.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    with serving(lambda *_: Answer(b"\xef\xbb\xbf" + whole, headers=kind)) as server:
        judge(server.address).judge(PROMPTS, PAIR)
    for body, status in ((b"n\xc3\xb6", 400), (b"n\xc3\xb6\xff", 200), ("nö".encode("utf-16"), 200)):
        with serving(lambda *_, body=body, status=status: Answer(body, status, kind)) as server:
            message = refusal(judge(server.address))
        assert ("nö" in message) == (body[:1] == b"n")


@pytest.mark.parametrize(
    ("name", "key", "address", "message"),
    [
        ("openai", "base_url", "http://host/v1?version=2", "holds a query, and the path of each request is put behind"),
        ("openai", "base_url", "http://host/v1?", "holds a query"),
        ("openai", "base_url", "http://host/v1#part", "is no address"),
        ("openai", "base_url", "http://host/v1#", "is no address"),
        ("http", "url", "http://host/v1#part", "is no address"),
        ("http", "url", "http://host/v1#", "is no address"),
    ],
)
def test_addresses_with_more_behind_the_path(name, key, address, message):
    section = {"name": name, key: address, **({"model": "m"} if name == "openai" else {})}
    with pytest.raises(ConfigError, match=rf"{key}: .*{message}"):
        registry.resolve("judges", section, Judge)


def test_the_address_of_scores_may_have_a_query():
    with serving(lambda body, _: {"scores": [1] * len(body["responses"])}) as server:
        build("judges", {"name": "http", "url": f"{server.address}/score?version=2"}, Judge).judge(PROMPTS, PAIR)
    assert server.paths == ["/score?version=2"]
