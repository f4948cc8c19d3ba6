"""`policy.precision`: what it says, and what is measured where it asks to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.generation import _sampler
from components.training import precision
from components.training.precision import PROMPTS, ROUNDS, pick_precision
from support.models.policies import assert_same_weights, prompt, weights
from support.runs import smoke

PROMPT = [prompt(f"w{7 + i}", id=str(i)) for i in range(9)]


@pytest.fixture
def policy(make_policy):
    return replace(make_policy(), prompt_format="{prompt}")


@pytest.mark.parametrize(("setting", "picked"), [("fp32", "fp32"), ("bf16", "bf16"), ("auto", "fp32")])  # on a CPU
def test_what_it_says(policy, setting, picked):
    assert pick_precision(policy, smoke(policy={"precision": setting}), PROMPT) == picked


class Clock:
    """Seconds by what was computed: a pass costs 1 in fp32; drawing and bf16 cost what is said."""

    def __init__(self, monkeypatch, *, draw_fp32, draw_bf16, train_bf16):
        self.now, self.drawn = 0.0, []
        draw, train = {"fp32": draw_fp32, "bf16": draw_bf16}, {"fp32": 1.0, "bf16": train_bf16}
        monkeypatch.setattr(precision, "time", self)
        self._costing(monkeypatch, _sampler, "sample", draw)
        self._costing(monkeypatch, precision, "response_logprobs", train)

    def perf_counter(self):
        return self.now

    def _costing(self, monkeypatch, module, name, costs):
        real = getattr(module, name)

        def call(policy, *arguments, **options):
            self.now += costs[policy.precision]
            if name == "sample":
                self.drawn.append(len(arguments[0]))
            return real(policy, *arguments, **options)

        monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize(
    ("engine", "epochs", "picked"),
    [
        ("transformers", 2, "fp32"),  # 1 + 2 x 1 = 3 against 3 + 2 x 0.25 = 3.5
        ("transformers", 4, "bf16"),  # 1 + 4 x 1 = 5 against 3 + 4 x 0.25 = 4
        ("vllm", 2, "bf16"),  # draws with kernels of its own: 2 against 0.5
    ],
)
def test_a_probe_weighs_drawing_and_training_as_the_run_does(policy, monkeypatch, engine, epochs, picked):
    clock = Clock(monkeypatch, draw_fp32=1.0, draw_bf16=3.0, train_bf16=0.25)
    config = smoke(policy={"precision": "probe"}, generation={"engine": {"name": engine}}, training={"epochs": epochs})
    before = weights(policy)
    attention = policy.model.config._attn_implementation
    assert pick_precision(policy, config, PROMPT) == picked
    assert clock.drawn == [PROMPTS] * 2 * ROUNDS
    assert_same_weights(weights(policy), before)
    assert all(p.grad is None for p in policy.model.parameters())
    assert policy.model.config._attn_implementation == attention
