"""What a run would take: operations, memory and bytes against figures by hand, a measured model and a real run."""

from __future__ import annotations

import pytest

from components.judges.reward_model import RewardModel
from components.plan import table
from components.plan.costs import Models, Shape, Work, work
from components.plan.memory import BF16
from components.plan.models import sizes
from support.plans import LENGTHS, MODELS, POLICY, config

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def test_operations_by_hand():
    """2e9 a token. An iteration's 100 prompts of 10 tokens are read once, 400 responses of 20 tokens drawn, and 100
    groups of 90 tokens read twice but for the first iteration's reference, which is the policy; 6e9 a token in
    training. 50 held-out prompts with 2 responses: 2,000 tokens drawn, 500 read, then 50 groups of 50 read twice."""
    assert work(config(), MODELS, LENGTHS) == {
        "start": Work(generate=2e9 * 2000, read=2e9 * 500),
        "generate": Work(generate=2 * 2e9 * 8000, read=2 * 2e9 * 1000),
        "score": Work(read=3 * 2e9 * 9000),
        "train": Work(train=2 * 6e9 * 9000),
        "evaluate": Work(generate=2 * 2e9 * 2000, read=2 * 2e9 * (500 + 2 * 2500)),
    }


def test_of_five_iterations_every_other_and_the_last_are_evaluated():
    once = work(config(iterations=1), MODELS, LENGTHS)["evaluate"].generate
    assert work(config(iterations=5, evaluation={"every": 2}), MODELS, LENGTHS)["evaluate"].generate == 3 * once


def test_a_run_that_goes_on_has_another_reference_from_the_first_iteration():
    assert work(config(start_from="WindFlow/1"), MODELS, LENGTHS)["score"].read == 4 * 2e9 * 9000


@pytest.mark.parametrize(
    ("training", "algorithm", "flops", "tokens"),
    [
        ({"epochs": 3}, "wind", 18e9, 10 + 4 * 20),
        ({}, "sppo", 6e9, 10 + 2 * 20),  # best and worst
        ({}, "bond", 6e9, 10 + 20),  # best
        ({"gradient_checkpointing": True}, "wind", 8e9, 4 * (10 + 20)),  # each response with its prompt
        ({"processes": 2}, "wind", 6e9, 4 * (10 + 20)),
        ({"lora": {}}, "sppo", 4e9, 10 + 2 * 20),  # frozen weights have no gradient
        ({"lora": {}, "gradient_checkpointing": True}, "dpo", 6e9, 2 * (10 + 20)),
    ],
)
def test_operations_of_training(training, algorithm, flops, tokens):
    trained = work(config(training=training, algorithm={"name": algorithm}), MODELS, LENGTHS)["train"]
    assert trained == Work(train=2 * 100 * flops * tokens)


def test_on_policy_training_draws_and_judges():
    """Three responses a prompt: 6,000 tokens drawn, 100 x (10 + 60) trained on, one of three read by the anchor."""
    judge = RewardModel(model="m")
    models = Models(POLICY, 0.0, BF16, [(judge, Shape.of_size(5e8))])
    steps = work(config(algorithm={"name": "jbond"}), models, LENGTHS)
    assert steps["generate"] == steps["score"] == Work()
    read = 2e9 * (1000 + 3000) + 1e9 * 300 * 30
    assert steps["train"] == Work(generate=2 * 2e9 * 6000, read=2 * read, train=2 * 6e9 * 7000)


@pytest.mark.parametrize(
    ("judge", "tokens"),
    [
        ({"name": "reward_model", "model": "rm"}, 400 * 30),
        ({"name": "pairrm", "model": "rm"}, 100 * 12 * 50),  # ordered pairs, two responses in each
        (
            {
                "name": "ensemble",
                "judges": [{"name": "pairrm", "model": "rm"}, {"name": "reward_model", "model": "rm"}],
            },
            72000,
        ),
    ],
)
def test_operations_of_judging(judge, tokens):
    run = config(judge=judge)
    models = sizes(run, {"nowhere": 1e9, "rm": 4e8})
    assert work(run, models, LENGTHS)["score"].read == 3 * 2e9 * 9000 + 2 * 8e8 * tokens


def test_hours():
    """1e15 at 15 % of 1e15 per second, 4e14 at 40 %, 3.5e14 at 35 %: 6 2/3 + 1 + 1 seconds."""
    utilisation = {"generate": 0.15, "read": 0.4, "train": 0.35}
    assert Work(1e15, 4e14, 3.5e14).seconds(1e15, utilisation) == pytest.approx(26 / 3)
    slow, fast = ({"generation": {"engine": {"name": name}}} for name in ("transformers", "vllm"))
    hours = [table.gpu_hours(config(**c), MODELS, LENGTHS, table.GPUS["A100"])["generate"] for c in (slow, fast)]
    assert hours[0] == pytest.approx(2 * 2e9 * (8000 / 0.03 + 1000 / 0.4) / 312e12 / 3600)
    assert hours[1] == pytest.approx(2 * 2e9 * (8000 / 0.15 + 1000 / 0.4) / 312e12 / 3600)
    exact = table.gpu_hours(config(policy={"precision": "fp32"}), MODELS, LENGTHS, table.GPUS["A100"])["train"]
    assert exact == pytest.approx(2 * 6e9 * 9000 / (19.5e12 * 0.35) / 3600)
