"""What a GPU must give: the same numbers as the CPU, within what its arithmetic allows."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from components.algorithms.wind import Wind
from components.config.sections import TrainingConfig
from components.data.records import Ragged, Rollout, Scored
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.policy.logprobs import score_responses
from components.policy.model import Policy
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.models import words
from support.models.words import EOS, PAD, make_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False"),
]

VOCABULARY, K = 200, 4


@pytest.fixture(scope="module")
def model():
    """A Llama with grouped heads and random weights, on the CPU in fp32."""
    shape = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 128}
    return make_model("llama", **shape, initializer_range=0.1)


def policy_of(model, device, *, precision="fp32", dtype=torch.float32):
    """A copy of the model on a device; prompts are token ids, and what its tokenizer makes of them doesn't matter."""
    return Policy(copy.deepcopy(model).to(device, dtype), words.make_tokenizer(), (EOS,), PAD, precision)


@pytest.fixture(scope="module")
def rows():
    """Prompts of unequal lengths, and K responses to each."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, VOCABULARY, length) for length in (5, 9, 2, 9, 14, 1)]
    responses = [[*rng.integers(3, VOCABULARY, length), EOS] for length in rng.integers(0, 20, len(prompts) * K)]
    return Ragged.of(prompts), Ragged.of(responses)


def test_log_probs_in_fp32(model, rows):
    exact = score_responses(policy_of(model, "cpu", dtype=torch.float64), *rows)
    np.testing.assert_allclose(score_responses(policy_of(model, "cuda"), *rows), exact, rtol=1e-5)


def test_log_probs_in_bf16(model, rows):
    """0.05 nats a token: bf16 keeps 8 bits of every activation."""
    exact = score_responses(policy_of(model, "cpu", dtype=torch.float64), *rows)
    found = score_responses(policy_of(model, "cuda", precision="bf16"), *rows)
    tokens = rows[1].lengths.reshape(exact.shape)
    assert (np.abs(found - exact) < 0.05 * tokens).all()
    assert not np.array_equal(found, exact)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_generation_repeats_itself(model, rows, precision):
    policy, prompts = policy_of(model, "cuda", precision=precision), [rows[0][i] for i in range(len(rows[0]))]
    seeds = np.arange(len(prompts) * K, dtype=np.uint64).reshape(-1, K)
    first, again = (TransformersEngine().sample(policy, prompts, seeds, Sampling(40)) for _ in range(2))
    np.testing.assert_array_equal(first.tokens.values, again.tokens.values)
    np.testing.assert_array_equal(first.tokens.offsets, again.tokens.offsets)
    for i, ended in enumerate(first.finished.reshape(-1)):
        assert EOS not in first.tokens[i][:-1]
        assert ended == (first.tokens[i][-1] == EOS)


def test_generation_in_fp32_draws_the_cpus_tokens(model, rows):
    """Rounding differs between devices, so a draw may now and then fall on the other side of an edge."""
    prompts = [rows[0][i] for i in range(len(rows[0]))]
    seeds = np.arange(len(prompts) * K, dtype=np.uint64).reshape(-1, K)
    ours, theirs = (
        TransformersEngine().sample(policy_of(model, device), prompts, seeds, Sampling(20)).tokens
        for device in ("cuda", "cpu")
    )
    same = [np.array_equal(ours[i], theirs[i]) for i in range(len(ours))]
    assert sum(same) >= len(same) - 1


def scored(model, rows):
    prompts, responses = rows
    n, rng = len(prompts), np.random.default_rng(1)
    logp = score_responses(policy_of(model, "cpu"), *rows)
    wins = np.triu(rng.random((n, K, K)), 1)
    preference = wins + np.tril(1 - wins.swapaxes(1, 2), -1) + 0.5 * np.eye(K)
    ids = [f"p{i}" for i in range(n)]
    rollout = Rollout(ids, prompts, responses, [""] * (n * K), np.ones((n, K), bool))
    return Scored(rollout, logp, logp + 0.1, preference, np.zeros((n, K)))


def trained(model, rows, device):
    """Weights after one optimiser step over all prompts in two micro-batches, and its figures."""
    policy = policy_of(model, device)
    settings = TrainingConfig(batch_size=6, micro_batch_size=3, learning_rate=1e-2, schedule="constant")
    figures = train(
        TrainingState(policy, make_optimizer(policy, settings), settings.micro_batch_size),
        scored(model, rows),
        Wind(beta=0.02, eta=10.0, clip=None),
        Schedule(settings, 1, 1, seed=0),
    )
    return {name: p.detach().cpu() for name, p in policy.model.named_parameters()}, figures


def test_a_training_step_equals_the_cpus(model, rows):
    """Adam's first step is the learning rate times the gradient's sign, so only near-zero gradients may differ."""
    before = dict(model.named_parameters())
    (cpu, cpu_figures), (gpu, gpu_figures) = (trained(model, rows, device) for device in ("cpu", "cuda"))
    for key in ("loss", "grad_norm"):
        assert gpu_figures[key] == pytest.approx(cpu_figures[key], rel=1e-4)
    steps = torch.cat([(cpu[name] - before[name].detach()).flatten() for name in cpu])
    differences = torch.cat([(gpu[name] - cpu[name]).flatten() for name in cpu]).abs()
    assert steps.abs().max() == pytest.approx(1e-2, rel=1e-3)
    assert (differences < 1e-4).float().mean() > 0.999
