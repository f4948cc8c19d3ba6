"""The judge `http`: scores of the reference server in examples/reward_server, and servers that break the contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from components.config import registry
from components.config.errors import ConfigError, JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge
from support.loopback_server import Answer, serving
from support.models.reward import save_reward

pytestmark = pytest.mark.thorough

EXAMPLE = Path(__file__).parents[2] / "examples" / "reward_server"
CHAT = (
    "{{ bos_token }}{% for m in messages %} {{ 'user:' if m['role'] == 'user' else 'w6' }} {{ m['content'] }} <end>"
    "{% endfor %}"
)
BOS, USER, END = 0, 4, 5  # of the tokenizers in conftest.py; word w7 has id 7
PROMPTS = [Prompt("one", ({"role": "user", "content": "w7"},)), Prompt("two", ({"role": "user", "content": "w8 w9"},))]
RESPONSES = [["w20", "w21 w22 w23"], ["w24 w25", "w24 w25"]]
INPUTS = [
    [[BOS, USER, 7, END, 6, 20, END], [BOS, USER, 7, END, 6, 21, 22, 23, END]],
    [[BOS, USER, 8, 9, END, 6, 24, 25, END]] * 2,
]
SECRET = "a-key-0123456789"


def judge(address, **settings):
    own = {"url": f"{address}/score", "timeout": 60.0, "retries": 1, "concurrency": 1, **settings}
    return build("judges", {"name": "http", **own}, Judge)


def lengths(body, number):
    return {"scores": [len(response) for response in body["responses"]]}


def refusal(address, **settings):
    with pytest.raises(JudgeError) as raised:
        judge(address, **settings).judge(PROMPTS, RESPONSES)
    assert SECRET not in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    return save_reward(folder, make_tokenizer, template=CHAT)


@pytest.fixture(scope="module")
def reference(folder):
    """The section of a config that the server prints."""
    command = [
        sys.executable,
        str(EXAMPLE / "server.py"),
        "--model",
        str(folder),
        "--port",
        "0",
        "--key-env",
        "REWARD_KEY",
    ]
    env = {**os.environ, "REWARD_KEY": SECRET, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield yaml.safe_load(process.stdout.readline())["judge"]
        finally:
            process.terminate()


def test_the_reference_servers_scores_are_the_models_own(reference, folder, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", SECRET)
    made = build("judges", {**reference, "api_key_env": "REWARD_KEY", "batch_size": 2}, Judge)
    made.check()
    judgement = made.judge(PROMPTS, RESPONSES)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        alone = [[float(model(input_ids=torch.tensor([ids])).logits[0, 0]) for ids in row] for row in INPUTS]
    np.testing.assert_allclose(judgement.reward, alone, atol=1e-5)
    margin = alone[0][0] - alone[0][1]
    assert judgement.preference[0, 0, 1] == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-5)
    assert judgement.preference[1, 0, 1] == 0.5


def test_the_reference_server_refuses_what_it_cannot_read(reference, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", "another")
    with pytest.raises(JudgeError, match=r"answers with status 401: .*judge\.api_key_env \(REWARD_KEY\)"):
        build("judges", {**reference, "api_key_env": "REWARD_KEY"}, Judge).check()
    for body in (b"[]", b"{", b'{"prompts": [], "responses": ["a"]}', b'{"prompts": ["p"], "responses": ["a"]}'):
        request = urllib.request.Request(reference["url"], body, {"Authorization": f"Bearer {SECRET}"})
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=120)
        with raised.value:
            assert raised.value.code == 400
            assert json.loads(raised.value.read())["error"].startswith("the request ")


def test_what_is_sent_and_how_it_is_counted():
    seen = []
    with serving(lengths) as server:
        made = judge(server.address, batch_size=2)
        judgement = made.judge(PROMPTS, RESPONSES, lambda done, total, **figures: seen.append((done, total)))
    # the second prompt's two responses are one
    assert server.bodies == [
        {"prompts": [list(PROMPTS[0].messages)] * 2, "responses": ["w20", "w21 w22 w23"]},
        {"prompts": [list(PROMPTS[1].messages)], "responses": ["w24 w25"]},
    ]
    assert server.paths == ["/score"] * 2
    assert "authorization" not in server.headers[0]
    assert judgement.reward.tolist() == [[3.0, 11.0], [7.0, 7.0]]
    assert seen == [(2, 3), (3, 3)]
    assert made.has_scores
    assert made.model_inputs(2, 8) == 16


def test_parts_and_the_higher_score_wins():
    def answer(body, number):
        return {"scores": [1, 2, 3], "parts": {"short": [True, False, True], "words": [1, 3, 2]}}

    with serving(answer) as server:
        judgement = judge(server.address, temperature=None).judge(PROMPTS, RESPONSES)
    assert {name: values.tolist() for name, values in judgement.parts.items()} == {
        "short": [[1.0, 0.0], [1.0, 1.0]],
        "words": [[1.0, 3.0], [2.0, 2.0]],
    }
    assert judgement.preference.tolist() == [[[0.5, 0.0], [1.0, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_passes_is_asked_again(status):
    with serving(lambda body, n: Answer({}, status) if n == 0 else lengths(body, n)) as server:
        begin = time.monotonic()
        judge(server.address).judge(PROMPTS, RESPONSES)
    assert len(server.bodies) == 2
    assert time.monotonic() - begin > 0.375  # 0.5 s, less a quarter at most


def test_the_server_says_when_to_ask_again():
    with serving(lambda body, n: Answer({}, 429, {"Retry-After": "1.5"}) if n == 0 else lengths(body, n)) as server:
        begin = time.monotonic()
        judge(server.address).judge(PROMPTS, RESPONSES)
    assert time.monotonic() - begin > 1.5


def test_a_connection_that_breaks_off_is_made_again():
    broken = Answer(b'{"sco', headers={"Content-Length": "500", "Connection": "close"})
    with serving(lambda body, n: broken if n == 0 else lengths(body, n)) as server:
        judge(server.address).judge(PROMPTS, RESPONSES)
    assert len(server.bodies) == 2


def test_a_slow_server_and_none():
    over = threading.Event()
    with serving(lambda *_: over.wait(120) and {"scores": [1, 2, 3]}) as server:
        message = refusal(server.address, timeout=0.2)
        over.set()
    assert "gives no answer (timed out), tried 2 times. See whether the server runs" in message
    assert "Connection refused" in refusal(server.address)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(f"wrong: {SECRET}".encode(), 403), "status 403: 'wrong: …'. Name the environment variable of a key"),
        (Answer({}, 404), "status 404: '{}'. Correct judge.url. It must take"),
        (Answer({}, 413), "status 413: '{}'. Lower judge.batch_size (16)."),
        (Answer({}, 429), "status 429: '{}'. Lower judge.concurrency (1) or raise judge.retries (0)."),
        (
            Answer(b"", 500),
            "status 500: 'Internal Server Error'. See what the server says, or raise judge.retries (0).",
        ),
        (
            Answer(b"", 302, {"Location": "/elsewhere"}),
            "Redirects are not followed, for they would take the key along. Correct",
        ),
        (b"<html>", "answers '<html>': it is not JSON: Expecting value"),
        (b'{"scores": [1, 2, ' + 6000 * b"9" + b"]}", "it holds a number of too many digits"),
        (b'{"scores": [1, 2, 3], "scores": [3, 2, 1]}', "line 1: the key 'scores' stands twice in one object."),
        ([1, 2, 3], "answers '[1, 2, 3]'. It must take"),
        ({"score": [1, 2, 3]}, """answers '{"score": [1, 2, 3]}'. It must take"""),
        ({"scores": [1, 2]}, "returned 2 scores for 3 responses. Return one for each, in order."),
        ({"scores": 1}, "returned 1. Make it return a list with a score for each response."),
        ({"scores": "123"}, "returned '123'. Make it return a list"),
        ({"scores": [1, None, 2]}, "prompt 'one', response 1: {url} returned None as 'score'. Make it a finite number"),
        ({"scores": [1, 2, -1.7e308]}, "prompt 'two', response 0: {url}: 'score' returned -1.7e+308. Make it a number"),
        (b'{"scores": [1, 2, NaN]}', "prompt 'two', response 0: {url} returned nan as 'score'."),
        ({"scores": [1, 2, 3], "parts": [1]}, "It must take"),
        ({"scores": [1, 2, 3], "parts": {"a": [1, 2]}}, "part 'a' returned 2 scores for 3 responses."),
        ({"scores": [1, 2, 3], "parts": {"a b": [1, 2, 3]}}, "names a part 'a b'. Use letters, digits and underscores"),
        ({"scores": [1, 2, 3], "parts": {"score": [1, 2, 3]}}, "names a part 'score', which means the score itself."),
    ],
)
def test_what_breaks_the_contract_is_shown(answer, message, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", SECRET)
    with serving(lambda *_: answer) as server:
        found = refusal(server.address, retries=0, api_key_env="REWARD_KEY")
    assert message.replace("{url}", f"{server.address}/score") in found
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert len(server.bodies) == 1


def test_parts_must_be_the_same_in_all_requests():
    with serving(lambda body, n: {**lengths(body, n), "parts": {"a": [1]} if n == 0 else {}}) as server:
        message = refusal(server.address, batch_size=1)
    assert "prompt 'one', response 1: " in message
    assert "returned other parts than for the first response: it lacks 'a'" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "url: is required."),
        ({"url": "ftp://host"}, "url: 'ftp://host' is no address."),
        ({"url": "http://.a/"}, "url: 'http://.a/' is no address ("),
        ({"url": "http://\u2603.de"}, "url: 'http://\u2603.de' is no address ("),
        ({"url": f"http://{64 * 'a'}.de"}, "is no address ("),
        ({"url": "http://host/\u00e9"}, "beyond ASCII behind the host. Write them as %XX."),
        ({"url": "http://key:x@host"}, "url: holds a user or a password"),
        ({"url": "http://host", "batch_size": 0}, "batch_size: 0 cannot be used."),
        ({"url": "http://host", "temperature": 0.0}, "temperature: 0.0 cannot be used."),
        ({"url": "http://host", "api_key_env": "my-key"}, "api_key_env: is no name of an environment variable"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError) as raised:
        registry.resolve("judges", {"name": "http", **settings}, Judge)
    assert message in str(raised.value)
