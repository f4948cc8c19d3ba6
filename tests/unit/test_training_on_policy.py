"""The on-policy step against a plain computation, and the anchor."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from components.algorithms.jbond import JBond
from components.config.sections import TrainingConfig
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.judges.verifier import Verifier
from components.stages import sampling
from components.training.loop import Schedule, run_steps
from components.training.on_policy import OnPolicyTrainer, make_anchor, save_anchor
from components.training.optimizer import clip_and_step, make_optimizer
from components.training.state import TrainingState
from support.models.tiny import make_policy, make_prompts


def word_value(response, prompt):
    """The sum of letters' places in the alphabet: tells most responses apart."""
    return float(sum(ord(word) - ord("a") for word in response.split() if len(word) == 1))


def make_trainer(*, n=6, micro=6, rate=0.1, policy=None, **hyper):
    policy = policy or make_policy(dtype=torch.float64)
    settings = TrainingConfig(batch_size=n, micro_batch_size=micro, learning_rate=1e-2, warmup_ratio=0.0)
    drawn = []

    def draw(source, prompts, count, purpose):
        rollout = sampling.generate(
            source,
            TransformersEngine(),
            prompts,
            responses=count,
            sampling=Sampling(6),
            seed=0,
            purpose=purpose,
            iteration=1,
        )
        drawn.append(rollout)
        return rollout

    trainer = OnPolicyTrainer(
        TrainingState(policy, make_optimizer(policy, settings), micro, make_anchor(policy)),
        JBond(anchor_rate=rate, **hyper),
        make_prompts(n),
        draw=draw,
        compare=partial(sampling.judge, Verifier(function=f"{__name__}:word_value")),
    )
    return trainer, drawn


def take_step(trainer, n=6):
    """What `run_steps` does of a step, at a constant learning rate."""
    state = trainer.state
    state.optimizer.zero_grad(set_to_none=True)
    loss, figures = trainer.gradient(np.arange(n))
    norm = clip_and_step(state.policy, state.optimizer, loss, 1.0)
    trainer.updated()
    state.done += 1
    return {**figures, "grad_norm": norm}


def plain_logp(policy, prompt, response):
    ids = torch.tensor([[*prompt, *response]])
    logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(logp[len(prompt) + i - 1, token] for i, token in enumerate(response.tolist()))


def parameters(policy):
    return torch.cat([p.detach().reshape(-1).clone() for p in policy.model.parameters()])


def move_away(policy):
    """So that policy and anchor differ."""
    with torch.no_grad():
        for i, parameter in enumerate(policy.model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)), alpha=0.05)


@pytest.mark.parametrize("micro", [1, 4, 6])
def test_gradient_is_that_of_a_plain_computation(micro):
    """Six prompts: y and the better of y1, y2 by the judge's own function, rows one at a time."""
    trainer, drawn = make_trainer(micro=micro, kl_weight=0.5, rate=0.0)
    move_away(trainer.policy)
    seen = {}
    trainer.state.optimizer.register_step_pre_hook(
        lambda *_: seen.update(grad=[p.grad.clone() for p in trainer.policy.model.parameters()])
    )
    before = {name: p.clone() for name, p in trainer.policy.model.state_dict().items()}
    figures = take_step(trainer)
    fresh, rivals = drawn
    policy, _ = make_trainer()[0].policy, None
    policy.model.load_state_dict(before)
    logp, ratio, reward, best = [], [], [], []
    for i in range(6):
        prompt = fresh.prompt_tokens[i]
        logp.append(plain_logp(policy, prompt, fresh.tokens[i]))
        ratio.append((logp[-1] - plain_logp(trainer.anchor, prompt, fresh.tokens[i])).item())
        own, first, second = (word_value(t, None) for t in (fresh.texts[i], *rivals.group(i)))
        reward.append(-np.log(16) if own < min(first, second) else 0.0)
        best.append(plain_logp(policy, prompt, rivals.tokens[2 * i + (second > first)]))
    ratio, returns = np.array(ratio), np.array(reward) - np.array(ratio)
    baseline, mean_ratio = ((a.sum() - a) / 5 for a in (returns, ratio))
    own_weight = 0.5 * (ratio - mean_ratio) - 0.5 * (returns - baseline)
    loss = sum(w * lp for w, lp in zip(own_weight, logp, strict=True)) / 6 - 0.5 * sum(best) / 6
    expected = torch.autograd.grad(loss, list(policy.model.parameters()))
    norm = torch.stack([g.norm() for g in expected]).norm().item()
    assert figures["grad_norm"] == pytest.approx(norm, rel=1e-6)
    clipped = min(1.0, 1.0 / norm)
    for ours, exact in zip(seen["grad"], expected, strict=True):
        torch.testing.assert_close(ours, exact * clipped, rtol=1e-4, atol=1e-6)
    assert figures["kl_anchor"] == pytest.approx(ratio.mean())
    assert figures["beaten"] == pytest.approx(np.mean(np.array(reward) < 0))


def test_anchor_is_a_moving_average_of_the_policy():
    trainer, _ = make_trainer(rate=0.25)
    before = parameters(trainer.anchor)
    take_step(trainer)
    after = parameters(trainer.policy)
    assert not torch.equal(before, after)
    torch.testing.assert_close(parameters(trainer.anchor), 0.75 * before + 0.25 * after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_anchor_is_restored_bit_for_bit(tmp_path, tied):
    policy = make_policy(tied=tied)
    anchor = make_anchor(policy)
    move_away(anchor)
    save_anchor(policy, anchor, tmp_path / "anchor.safetensors")
    restored = make_anchor(policy, tmp_path / "anchor.safetensors")
    assert torch.equal(parameters(restored), parameters(anchor))
    assert not any(p.requires_grad for p in restored.model.parameters())
    assert all(p.requires_grad for p in policy.model.parameters())


def test_every_step_draws_anew_and_is_counted():
    trainer, drawn = make_trainer(n=6)
    settings = TrainingConfig(batch_size=3, micro_batch_size=3, epochs=2)
    run_steps(trainer, trainer.state, Schedule(settings, 1, 1, seed=0), np.arange(6), of=6)
    assert [r.shape for r in drawn] == [(3, 1), (3, 2)] * 4
    tokens = sum(len(r.tokens.values) for r in drawn)
    assert trainer.state.drawn == {"responses": 3 * 6 * 2, "tokens_generated": tokens}
    visits = [(r.prompt_ids[i], tuple(r.tokens[i])) for r in drawn[::2] for i in range(3)]
    assert len(set(visits)) > 6  # the second epoch's responses are others


def test_equal_seeds_give_equal_policies():
    ends = []
    for _ in range(2):
        trainer, _ = make_trainer()
        for _ in range(2):
            take_step(trainer)
        ends.append(parameters(trainer.policy))
    assert torch.equal(*ends)


def test_training_raises_what_the_judge_prefers():
    trainer, drawn = make_trainer(n=32, micro=32, policy=make_policy())
    for _ in range(40):
        take_step(trainer, 32)
    first, last = (np.mean([word_value(t, None) for t in r.texts]) for r in (drawn[0], drawn[-2]))
    assert last > first + 5
