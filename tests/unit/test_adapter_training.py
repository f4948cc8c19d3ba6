"""Training an adapter: what moves, by which gradients, and what an anchor is beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.algorithms.wind import Wind
from components.config.sections import TrainingConfig
from components.policy import lora
from components.policy.batches import collate
from components.policy.logprobs import response_logprobs, score_responses
from components.training.gradient_checkpointing import checkpointed
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.on_policy import make_anchor, save_anchor
from components.training.optimizer import make_optimizer, moments
from components.training.state import TrainingState
from support.models.adapters import LORA, disturb
from support.models.tiny import make_policy as make_tiny
from support.models.tiny import make_scored


def with_adapter(**options):
    policy = make_tiny(**options)
    lora.add(policy.model, LORA, 0)
    return policy


def fit(policy, **changed):
    settings = TrainingConfig(**{"batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, **changed})
    state = TrainingState(policy, make_optimizer(policy, settings), settings.micro_batch_size)
    figures = train(
        state,
        make_scored(make_tiny(), n=8, k=3),
        Wind(beta=0.02, eta=10.0, clip=None),
        Schedule(settings, 1, 1, seed=0),
    )
    return state, figures


@pytest.mark.parametrize("tied", [False, True])
def test_only_the_adapter_is_trained_and_remembered(tied):
    policy = with_adapter(tied=tied)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    state, _ = fit(policy, epochs=3)
    own = lora.weights(policy.model).keys()
    moved = {name for name, p in policy.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == own
    assert {name.split(".", 1)[1] for name in moments(policy, state.optimizer)} == own
    assert {name.removeprefix("policy.") for name in state._weights()} == own


def test_gradients_are_those_of_the_merged_weights():
    """By the chain rule: W + s·BA has the gradient G, so B has s·GAᵀ and A has s·BᵀG."""
    policy, merged = with_adapter(dtype=torch.float64), make_tiny(dtype=torch.float64)
    disturb(policy.model)
    own = {name: p.detach() for name, p in lora.weights(policy.model).items()}
    rng = np.random.default_rng(0)
    rows = [rng.integers(4, 20, length) for length in (4, 7)]
    gradients = []
    for found in (policy, merged):
        if found is merged:
            with torch.no_grad():
                for name, b in own.items():
                    if "lora_B" in name:
                        layer = merged.model.get_submodule(name.partition(".lora_")[0])
                        layer.weight += 4 * b @ own[name.replace("lora_B", "lora_A")]
        logp = response_logprobs(found, collate(rows[:1], rows[1:], 2, torch.device("cpu")))
        torch.autograd.backward(logp.sum())
        gradients.append({name: p.grad for name, p in found.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == own.keys()
    for name, gradient in gradients[0].items():
        whole = gradients[1][name.partition(".lora_")[0] + ".weight"]
        if "lora_B" in name:
            expected = 4 * whole @ own[name.replace("lora_B", "lora_A")].T
        else:
            expected = 4 * own[name.replace("lora_A", "lora_B")].T @ whole
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)  # norms round to fp32


def test_with_gradient_checkpointing():
    plain, checked = with_adapter(), checkpointed(with_adapter())
    for policy in (plain, checked):
        fit(policy, epochs=2)
    for name, parameter in lora.weights(checked.model).items():
        torch.testing.assert_close(parameter, lora.weights(plain.model)[name], rtol=1e-4, atol=1e-5)


def test_training_teaches_as_full_weights_do():
    _, figures = fit(with_adapter(), epochs=1)
    policy = with_adapter()
    _, after = fit(policy, epochs=30)
    assert after["loss"] < 0.8 * figures["loss"]
    data = make_scored(make_tiny(), n=8, k=3)
    scores = score_responses(policy, data.rollout.prompt_tokens, data.rollout.tokens)
    assert np.abs(scores - data.logp_old).max() > 1


def test_an_anchor_shares_the_base_and_has_an_adapter_of_its_own(tmp_path):
    policy = with_adapter()
    anchor = make_anchor(policy)
    own = lora.weights(policy.model).keys()
    ours, theirs = (dict(p.model.named_parameters()) for p in (policy, anchor))
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] is not theirs[name]} == own
    disturb(anchor.model)
    assert not any(torch.equal(ours[name], theirs[name]) for name in own if "lora_B" in name)
    save_anchor(policy, anchor, tmp_path / "anchor.safetensors")
    assert load_file(tmp_path / "anchor.safetensors").keys() == own
    again = make_anchor(policy, tmp_path / "anchor.safetensors")
    found = lora.weights(again.model)
    assert all(torch.equal(found[name], theirs[name]) for name in own)
    assert [p.requires_grad for p in ours.values()] == [name in own for name in ours]
