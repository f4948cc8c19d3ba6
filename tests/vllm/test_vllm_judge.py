"""The judge `openai` at vLLM's own OpenAI-compatible server: what it prefers is what the model's forward says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge
from support.loopback_server import kept_port
from support.models.served import WORDS, needs_vllm, save_llama

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm]

PROMPTS = [Prompt("one", ({"role": "user", "content": "c d"},)), Prompt("two", ({"role": "user", "content": "e"},))]
RESPONSES = [["f g", "h", "i j k"], ["l", "m n", "f"]]
FIRST, SECOND = WORDS.index("a"), WORDS.index("b")
BIAS = {str(FIRST): 100, str(SECOND): 100}  # a model with random weights says one of the two


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_llama(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory) -> Iterator[str]:
    with kept_port() as port:
        yield from serve(folder, port, tmp_path_factory.mktemp("log") / "vllm.log")


def serve(folder: Path, port: int, log: Path) -> Iterator[str]:
    options = f"--host 127.0.0.1 --port {port} --served-model-name tiny --dtype float32 --enforce-eager".split()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=300)


def wait_for(health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 900
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(health, timeout=60).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise AssertionError(log.read_text()[-3000:])


def judge(address, **settings):
    own = {
        "model": "tiny",
        "api_key_env": None,
        "max_tokens": 1,
        "verdicts": ["a", "b"],
        "prompt": "{prompt} q {response_a} r {response_b} s",
    }
    return build(
        "judges", {"name": "openai", "base_url": address, "request": {"logit_bias": BIAS}, **own, **settings}, Judge
    )


@torch.no_grad()
def shown_first_wins(folder, prompt, first, second) -> float:
    """P(a) / (P(a) + P(b)) of the token after <s> and the words of the prompt, by the model's own forward."""
    words = ["<s>", *prompt.split(), "q", *first.split(), "r", *second.split(), "s"]
    ids = torch.tensor([[WORDS.index(word) for word in words]])
    logits = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits[0, -1].double().numpy()
    known = set(np.argsort(-logits)[:20].tolist())  # the server tells no more
    a, b = (float(np.exp(logits[i])) if i in known else 0.0 for i in (FIRST, SECOND))
    return a / (a + b)


def test_preferences_are_the_models_own_probabilities(address, folder):
    made = judge(address)
    made.check()
    judgement = made.judge(PROMPTS, RESPONSES)
    for i, prompt in enumerate(PROMPTS):
        for j, k in [(0, 1), (0, 2), (1, 2)]:
            one, two = RESPONSES[i][j], RESPONSES[i][k]
            there = shown_first_wins(folder, prompt.text, one, two)
            back = shown_first_wins(folder, prompt.text, two, one)
            assert judgement.preference[i, j, k] == pytest.approx((there + 1 - back) / 2, abs=1e-4)
    assert np.ptp(judgement.preference) > 0.01
    words = [
        len(f"{p.text} q {a} r {b} s".split())
        for p, row in zip(PROMPTS, RESPONSES, strict=True)
        for a in row
        for b in row
        if a != b
    ]
    assert judgement.usage["tokens_in"] == sum(words) + len(words)  # each with <s>
    assert judgement.usage["requests"] == 12
    assert judgement.usage["unparsed"] == 0


def test_without_log_probs_the_verdict_is_hard(address, folder):
    judgement = judge(address, top_logprobs=0).judge(PROMPTS[:1], [["f g", "h"]])
    there, back = (shown_first_wins(folder, "c d", *pair) > 0.5 for pair in (("f g", "h"), ("h", "f g")))
    assert judgement.preference[0, 0, 1] == (there + 1 - back) / 2


def test_what_the_server_refuses_is_told(address):
    with pytest.raises(JudgeError, match=r"answers with status 404: .*Correct judge\.model \(other\)"):
        judge(address, model="other").check()
    with pytest.raises(JudgeError, match=r"judge\.max_unparsed: 1 of 1 answers are not 'yes' or 'no'"):
        judge(address, verdicts=["yes", "no"]).check()
