"""What a run would hold in memory and store, against figures by hand and a measured model."""

from __future__ import annotations

import pytest

from components.plan.costs import Models, Shape
from components.plan.memory import BF16, FP32, memory, stored
from components.plan.models import sizes
from support.plans import LENGTHS, MODELS, POLICY, config

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def test_memory_by_hand():
    """Responses of 30 tokens. fp32 weights and bf16 casts: 6e9. Sampling 8 at once: 8 x 40 tokens x 10 layers x 50
    numbers x 2 bytes. Scoring: a layer's 31 x 100 + 8 x 200 = 4,700 bytes for 8,192 tokens. Training: 4e9 of gradients,
    8e9 of moments, 2 x 130 tokens x 10 layers. 3 x 512 MiB for the logits."""
    head = 3 * 512 * 2**20
    found = memory(config(), MODELS, LENGTHS)
    assert found["generate"] == 6e9 + 320000
    assert found["score"] == 6e9 + 8192 * 4700 + head
    assert found["train"] == 18e9 + 260 * 47000 + head
    assert found["start"] == found["evaluate"] == found["score"]


@pytest.mark.parametrize(
    ("training", "policy", "expected"),
    [
        ({"optimizer": "rmsprop"}, {}, 14e9 + 260 * 47000),
        ({"optimizer": "adamw_8bit"}, {"precision": "fp32"}, 10e9 + 260 * 10 * (34 * 100 + 16 * 200)),
        # Each response with its prompt, 320 tokens; the layers' inputs in fp32, and one layer at a time.
        ({"gradient_checkpointing": True}, {}, 18e9 + 320 * (10 * 400 + 4700)),
        # Four processes hold a quarter of 16e9 each, and two of ten layers whole, 6 bytes a weight.
        ({"processes": 4}, {}, 4e9 + 1.2e9 + 320 * 47000),
        # Of a step of four prompts, each reads one at a time, whatever a micro-batch may hold.
        ({"processes": 4, "batch_size": 4}, {}, 4e9 + 1.2e9 + 160 * 47000),
        # bf16 weights, and 4 + 4 + 8 bytes of each of the adapter's.
        ({"lora": {}}, {}, 2e9 + 16 * 1e6 + 260 * 47000),
    ],
)
def test_memory_of_training(training, policy, expected):
    models = Models(POLICY, 1e6 if "lora" in training else 0.0, BF16, [])
    assert memory(config(training=training, policy=policy), models, LENGTHS)["train"] == expected + 3 * 512 * 2**20


def test_each_process_loads_the_whole_model():
    found = memory(config(training={"processes": 100}), MODELS, LENGTHS)
    assert found["train"] == 4e9


def test_memory_beside_a_judge():
    """vLLM holds bf16 weights and one response's cache at least; the judge, 4 bytes each, is there in `start` only."""
    run = config(judge={"name": "pairrm", "model": "rm"}, generation={"engine": {"name": "vllm"}})
    found = memory(run, sizes(run, {"nowhere": 1e9, "rm": 2e9}), LENGTHS)
    shape = Shape.of_size(1e9)
    cache = 2 * 40 * shape.layers * shape.kv
    assert found["generate"] == 2e9 + cache
    assert found["score"] > found["start"] - 1 > 10e9 + cache


def test_a_usual_shape():
    """Llama 3 8B has 32 layers of 4,096 and a cache of 2 x 1,024 numbers per token and layer."""
    shape = Shape.of_size(8.03e9)
    assert (shape.layers, shape.hidden, shape.kv) == (34, 4352, 2176)


def test_bytes_by_hand():
    """Weights and two moments in fp32: 12e9 an iteration. Rollouts at 8 bytes a token: 100 groups of 90 tokens twice,
    and 8 bytes for each of 4 preferences, 2 log-probs and a reward of 400 responses; 50 groups of 50 for evaluation."""
    found = stored(config(), MODELS, LENGTHS)
    assert found.start == 2e9 + 8 * 2500
    assert found.iteration == 12e9 + 2 * 8 * 9000 + 8 * 400 * 7 + 8 * 2500
    assert found.total(2) == found.start + 2 * found.iteration
    lora = stored(config(training={"lora": {}, "optimizer": "rmsprop"}), Models(POLICY, 1e6, FP32, []), LENGTHS)
    assert lora.start == 4e9 + 8 * 2500
    assert lora.iteration == 8e6 + 2 * 8 * 9000 + 8 * 400 * 7 + 8 * 2500
    anchored = stored(config(algorithm={"name": "jbond"}), MODELS, LENGTHS)
    assert anchored.iteration == 16e9 + 8 * 2500
