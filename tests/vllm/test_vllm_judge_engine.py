"""The judge `llm_judge` on vLLM: the verdicts that it has on transformers, and nothing of vLLM left afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge, Judgement
from components.runtime.processes import children
from support.models.served import WORDS, needs_vllm, save_llama, save_tokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm]

PROMPTS = [Prompt("one", ({"role": "user", "content": "c d"},)), Prompt("two", ({"role": "user", "content": "e"},))]
RESPONSES = [["f g", "h", "i j k", "h"], ["l", "m n", "f", "o p q r s f"]]  # two are equal, whose inputs are one
FIRST, SECOND = WORDS.index("a"), WORDS.index("b")
ENGINE = {"name": "vllm", "enforce_eager": True, "kv_cache_mb": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_llama(tmp_path_factory.mktemp("judge"))


def judge(folder: Path, **settings) -> Judge:
    own = {
        "name": "llm_judge",
        "model": str(folder),
        "precision": "fp32",
        "verdicts": ["a", "b"],
        "prompt": "{prompt} q {response_a} r {response_b} s",
        "min_verdict_mass": 0.0,
    }
    return build("judges", {**own, **settings}, Judge)


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int, dict[str, float]]]:
    return []


@pytest.fixture(scope="module")
def judgement(folder, told) -> Judgement:
    """One start of vLLM for all that is asked of it."""
    made = judge(folder, engine=ENGINE)
    return made.judge(PROMPTS, RESPONSES, lambda done, total, **figures: told.append((done, total, figures)))


@torch.no_grad()
def probabilities(folder: Path, prompt: Prompt, first: str, second: str) -> tuple[float, float]:
    """Of the two verdicts after <s> and the words of the prompt, by the model's own forward, in float64."""
    words = ["<s>", *prompt.text.split(), "q", *first.split(), "r", *second.split(), "s"]
    ids = torch.tensor([[WORDS.index(word) for word in words]])
    p = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits[0, -1].double().softmax(-1)
    return float(p[FIRST]), float(p[SECOND])


def test_preferences_are_the_probabilities_of_the_verdict_in_both_orders(judgement, folder):
    for i, prompt in enumerate(PROMPTS):
        for j, k in [(0, 1), (0, 2), (1, 2), (0, 3), (2, 3)]:
            (a, b), (c, d) = (
                probabilities(folder, prompt, RESPONSES[i][x], RESPONSES[i][y]) for x, y in ((j, k), (k, j))
            )
            assert judgement.preference[i, j, k] == pytest.approx((a / (a + b) + d / (c + d)) / 2, abs=1e-5)
    assert np.ptp(judgement.preference) > 0.01
    assert judgement.preference[0, 1, 3] == 0.5


def test_verdicts_are_those_on_transformers(judgement, folder):
    on_transformers = judge(folder).judge(PROMPTS, RESPONSES)
    np.testing.assert_allclose(judgement.preference, on_transformers.preference, atol=1e-5)
    np.testing.assert_allclose(judgement.orders["judge"], on_transformers.orders["judge"], atol=1e-5)
    assert np.isnan(judgement.reward).all()


def test_progress_ends_with_all_inputs_and_the_mass_of_the_verdicts(judgement, folder, told):
    done, total, figures = told[-1]
    pairs = [
        (prompt, RESPONSES[i][j], RESPONSES[i][k])
        for i, prompt in enumerate(PROMPTS)
        for j in range(4)
        for k in range(4)
        if j != k
    ]
    distinct = {(prompt.id, first, second): prompt for prompt, first, second in pairs}
    masses = [sum(probabilities(folder, prompt, *key[1:])) for key, prompt in distinct.items()]
    assert done == total == len(distinct)
    assert figures["verdict_mass"] == pytest.approx(float(np.mean(masses)), abs=1e-5)


def test_nothing_of_vllm_is_left(judgement):
    assert [pid for pid in children() if b"vllm" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []


def test_a_model_that_vllm_does_not_know_is_refused_by_the_check(tmp_path):
    config = OpenAIGPTConfig(vocab_size=len(WORDS), n_positions=512, n_embd=64, n_layer=1, n_head=2)
    OpenAIGPTLMHeadModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(JudgeError, match=r"^judge\.engine: vLLM does not take this judge's model(.|\n)*OpenAIGPTLM"):
        judge(tmp_path, engine=ENGINE).check()
