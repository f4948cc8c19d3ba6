"""Gradient checkpointing: the same loss and gradients from less memory, whatever the architecture drops or caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig

from components.config.errors import PolicyError
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.policy import batches
from components.policy.batches import collate
from components.policy.logprobs import response_logprobs
from components.training.gradient_checkpointing import checkpointed
from components.training.on_policy import make_anchor

VOCABULARY, PAD, CPU = 60, 2, torch.device("cpu")  # of the models in support.models.words


def make_batch(**options):
    """Prompts of unequal lengths, one of a single token, and three responses to each, two of them equal."""
    rng = np.random.default_rng(2)
    prompts, responses = (
        [rng.integers(6, VOCABULARY, n) for n in lengths] for lengths in ([4, 1, 9], [3, 0, 9, 1] * 2)
    )
    return collate(prompts, [*responses, responses[7]], PAD, CPU, **options)


@pytest.fixture
def shared():
    """Its prompts are read once for their responses."""
    return make_batch()


@pytest.fixture
def batch():
    """Its rows hold whole prompts."""
    return make_batch(share_prompts=False)


def gradients(policy, batch):
    """Log-probs, and the gradient of a weighted sum of them, in one vector."""
    policy.model.zero_grad()
    logp = response_logprobs(policy, batch)
    torch.autograd.backward(logp @ torch.linspace(-1, 2, len(logp)))
    return logp.detach(), torch.cat([p.grad.reshape(-1) for p in policy.model.parameters()])


@pytest.mark.thorough(but=["1"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("overhead", [1, 256])
def test_gradients_are_the_same(model, make_policy, monkeypatch, precision, overhead):
    """Bit for bit those of the same rows kept in memory; to rounding those of prompts that are read once."""
    monkeypatch.setattr(batches, "OVERHEAD", overhead)  # rows in many parts, or in one
    policy, batch = make_policy(model, precision=precision), make_batch(share_prompts=False)
    once, whole = gradients(policy, make_batch()), gradients(policy, batch)
    found = gradients(checkpointed(policy), batch)
    assert torch.equal(found[0], whole[0])
    assert torch.equal(found[1], whole[1])
    if precision == "fp32":
        torch.testing.assert_close(found[0], once[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[1], once[1], rtol=1e-5, atol=1e-5 * once[1].abs().max().item())


def test_a_prefix_is_refused(make_policy, shared):
    """A layer that is computed again would fill the cache twice."""
    with pytest.raises(AssertionError):
        gradients(checkpointed(make_policy()), shared)


def test_layers_that_drop_units_out_themselves_do_not(make_policy, batch):
    """OPT's layers ask for their own mode before they drop half of the units."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        dropout=0.5,
        attention_dropout=0.5,
    )
    policy = make_policy(AutoModelForCausalLM.from_config(config).eval())
    expected = gradients(policy, batch)
    for found, exact in zip(gradients(checkpointed(policy), batch), expected, strict=True):
        assert torch.equal(found, exact)


def test_layers_run_twice_and_keep_little(make_policy, batch):
    """Of two layers the inputs are kept, (rows, length, 16) each, and not the many tensors within."""
    policy, calls = make_policy(), []
    policy.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    def numbers_kept(policy):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logp = response_logprobs(policy, batch)
        before = sum(kept)
        torch.autograd.backward(logp.sum())
        return before

    plain = numbers_kept(policy)
    assert calls == [True]
    less = numbers_kept(checkpointed(policy))
    assert calls == [True] * 3
    rows, length = batch.input_ids.shape
    assert plain - less > 10 * rows * length * 16


def test_what_needs_no_gradient_runs_once_and_uses_the_cache(make_policy, shared):
    plain, policy = make_policy(), checkpointed(make_policy())
    calls = []
    policy.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.equal(response_logprobs(policy, shared), response_logprobs(plain, shared))
    assert len(calls) == 2  # prompts, then responses
    prompts, seeds = [np.array([7, 8, 9]), np.array([10])], np.arange(6, dtype=np.uint64).reshape(2, 3)
    ours, theirs = (TransformersEngine().sample(p, prompts, seeds, Sampling(9)).tokens for p in (policy, plain))
    assert np.array_equal(ours.values, theirs.values)


def test_an_anchor_has_layers_of_its_own(make_policy, batch):
    policy = checkpointed(make_policy())
    anchor = make_anchor(policy)
    with torch.no_grad():
        before = response_logprobs(policy, batch)
        for parameter in anchor.model.parameters():
            parameter.mul_(0.5)
        assert torch.equal(response_logprobs(policy, batch), before)
        assert not torch.allclose(response_logprobs(anchor, batch), before)


def test_a_model_without_such_layers_is_refused(make_policy):
    policy = replace(make_policy(), model=torch.nn.Linear(2, 2))
    with pytest.raises(PolicyError, match=r"training\.gradient_checkpointing: Linear has no Grad.* Set it to false"):
        checkpointed(policy)
