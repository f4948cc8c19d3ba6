"""Training: schedule, order, accumulation, optimiser state, and one step against a plain computation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from components.algorithms import leave_one_out
from components.algorithms.wind import Wind
from components.data.records import Ragged, Rollout, Scored
from components.policy.logprobs import score_responses
from components.training.optimizer import make_optimizer
from support.models.tiny import (
    EOS,
    WORDS,
    make_policy,
    make_prompts,
    make_scored,
)
from support.training import assert_same, fit, settings, weights


def log_probs(policy, data):
    """log pi(response | prompt), (n, K): the whole model on one row at a time, log-softmax of all its logits."""
    rollout, k = data.rollout, data.rollout.shape[1]
    sums = []
    for row in range(len(rollout.tokens)):
        prompt, response = rollout.prompt_tokens[row // k], rollout.tokens[row]
        ids = torch.tensor([[*prompt, *response]])
        logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)
        sums.append(sum(logp[len(prompt) + i - 1, token] for i, token in enumerate(response.tolist())))
    return torch.stack(sums).reshape(-1, k)


def test_starts_where_the_responses_were_drawn():
    """Before the first step h is beta·(logp_old - logp_ref), and the policy has not moved."""
    policy = make_policy()
    data = make_scored(policy, n=8, k=3)
    figures = fit(policy, data, algorithm=Wind(clip=None, beta=0.5))
    expected = (0.5 * (data.logp_old - data.logp_ref) + 0.5 - leave_one_out(data.preference)) ** 2
    assert abs(figures["logp_change"]) < 1e-5
    assert figures["loss"] == pytest.approx(expected.mean(), rel=1e-5)


@pytest.fixture
def norms_in_full_precision(monkeypatch):
    """Llama's norms round to fp32 on the way, forwards and backwards, whatever the weights are."""

    def forward(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


@pytest.mark.thorough(but=["adamw-0.001", "rmsprop-1000000.0"])
@pytest.mark.usefixtures("norms_in_full_precision")
@pytest.mark.parametrize("max_grad_norm", [1e-3, 1e6])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_step_equals_a_plain_computation(max_grad_norm, optimizer):
    """fp64, responses one by one without padding, the first step by hand: whatever the micro-batch size."""
    start = make_policy(dtype=torch.float64)
    data = make_scored(start, n=8, k=3)
    wind = Wind(clip=None, beta=0.5, eta=2.0)
    logp = log_probs(start, data)
    h = (2 * logp - torch.tensor(data.logp_old + data.logp_ref)) / 2
    ((h + 0.5 - torch.tensor(leave_one_out(data.preference))) ** 2).mean().backward()
    gradients = {name: parameter.grad for name, parameter in start.model.named_parameters()}
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
    clip = min(1.0, max_grad_norm / (norm + 1e-6))
    expected = {}
    for name, before in weights(start).items():
        gradient, decay = gradients[name] * clip, 0.1 * (before.ndim == 2)  # only matrices decay
        if optimizer == "adamw":  # both moments are bias-corrected to the gradient itself and its square
            expected[name] = before * (1 - 1e-2 * decay) - 1e-2 * gradient / (gradient.abs() + 1e-8)
        else:  # the mean square begins at zero and takes a hundredth of the first
            gradient = gradient + decay * before
            expected[name] = before - 1e-2 * gradient / (0.1 * gradient.abs() + 1e-8)
    for micro_batch_size in (1, 2, 3, 8):
        policy = make_policy(dtype=torch.float64)
        config = settings(
            optimizer=optimizer,
            micro_batch_size=micro_batch_size,
            max_grad_norm=max_grad_norm,
            weight_decay=0.1,
            warmup_ratio=0.0,
        )
        figures = fit(policy, data, algorithm=wind, config=config)
        assert figures["grad_norm"] == pytest.approx(norm, rel=1e-9)
        for name, after in weights(policy).items():
            torch.testing.assert_close(after, expected[name], rtol=0, atol=1e-9)


def test_logp_change_is_in_nats_per_response():
    """Two steps over the same eight prompts: the second sees what the first one changed; their mean is reported."""
    policy, moved = make_policy(), make_policy()
    data = make_scored(policy, n=8, k=2)
    figures = fit(policy, data, config=settings(epochs=2, schedule="constant", warmup_ratio=0.0))
    fit(moved, data, config=settings(schedule="constant", warmup_ratio=0.0))
    with torch.no_grad():
        change = (log_probs(moved, data).numpy() - data.logp_old).mean()
    assert abs(change) > 1e-2
    assert figures["logp_change"] == pytest.approx(change / 2, abs=1e-5)


def test_winners_become_likelier_than_losers():
    """Four one-word responses to each prompt, `a` beats `b` beats `c` beats `d`: v = 1, 2/3, 1/3, 0.

    The minimum has gaps of eta/3 = 3.3 nats between neighbours; half of that must be reached.
    """
    policy = make_policy()
    prompts = make_prompts(8)
    rows = [[WORDS.index(word), EOS] for _ in prompts for word in "abcd"]
    tokens, responses = Ragged.of([policy.encode(p) for p in prompts]), Ragged.of(rows)
    beats = np.triu(np.ones((4, 4)), 1) + np.eye(4) / 2
    logp = score_responses(policy, tokens, responses)
    rollout = Rollout([p.id for p in prompts], tokens, responses, [*"abcd"] * 8, np.ones((8, 4), bool))
    data = Scored(rollout, logp, logp, np.tile(beats, (8, 1, 1)), np.full((8, 4), np.nan))
    fit(policy, data, algorithm=Wind(clip=None, beta=0.0, eta=10.0), config=settings(epochs=40))
    with torch.no_grad():
        change = log_probs(policy, data).numpy() - logp
    gaps = -np.diff(change.mean(0))
    assert (gaps > 5 / 3).all()
    assert (change[:, 0] > change[:, 3] + 5).all()


class BestAndWorst(Wind):
    """WIND on the best and the worst response only."""

    clip: float | None = None

    def select(self, win_rate):
        return np.stack([win_rate.argmax(1), win_rate.argmin(1)], axis=1)


def total_order(n):
    """Preferences (n, 4, 4) in which response i of prompt p is beaten by those after it, turned by p places."""
    place = np.stack([np.roll(np.arange(4), p) for p in range(n)])
    return (np.sign(place[:, :, None] - place[:, None, :]) + 1) / 2


def test_trains_on_the_selected_responses_only():
    """Of a total order the best has v = 1 and the worst v = 0: at the start both losses are 1/4.

    All four would give (1/4 + 1/36 + 1/36 + 1/4) / 4 = 5/36. Log-probs of the others are NaN: nobody may look.
    """
    policy, other = make_policy(), make_policy()
    data = replace(make_scored(policy, n=8, k=4), preference=total_order(8))
    data = replace(data, logp_ref=data.logp_old)
    assert fit(other, data)["loss"] == pytest.approx(5 / 36, rel=1e-5)
    win_rate = leave_one_out(data.preference)
    hidden = np.where((win_rate == 0) | (win_rate == 1), data.logp_old, np.nan)
    figures = fit(policy, replace(data, logp_old=hidden, logp_ref=hidden), algorithm=BestAndWorst())
    assert figures["loss"] == pytest.approx(1 / 4, rel=1e-5)
    assert abs(figures["logp_change"]) < 1e-5


def test_same_seed_same_weights():
    def result(seed):
        policy = make_policy()
        fit(policy, make_scored(policy, n=10, k=3), config=settings(batch_size=4, micro_batch_size=2), seed=seed)
        return weights(policy)

    first = result(0)
    assert_same(result(0), first)
    assert not torch.equal(result(1)["lm_head.weight"], first["lm_head.weight"])


class Infinite(Wind):
    """A loss of zero whose gradient is infinite."""

    clip: float | None = None

    def loss(self, group):
        return (group.logp - group.logp.detach()).sqrt()


@pytest.mark.parametrize("case", ["loss", "gradient"])
def test_divergence_stops_before_it_reaches_the_weights(case):
    policy = make_policy()
    data = make_scored(policy, n=8, k=2)
    if case == "loss":
        data.logp_old[5, 1] = np.nan
    before = weights(policy)
    config = settings(weight_decay=0.1, micro_batch_size=2)
    optimizer = make_optimizer(policy, config)
    with pytest.raises(FloatingPointError, match="diverged"):
        fit(
            policy,
            data,
            algorithm=Infinite() if case == "gradient" else Wind(beta=0.02, eta=10.0, clip=None),
            config=config,
            optimizer=optimizer,
        )
    assert_same(weights(policy), before)
    assert not optimizer.state
