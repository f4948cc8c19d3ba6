"""GRPO, RLOO and WIND's clip: arithmetic by hand, gradients against hand-written ones, tokens through real forwards."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.algorithms import Group, Tokens
from components.algorithms.grpo import Grpo, advantages
from components.algorithms.rloo import Rloo, leave_one_out_advantages
from components.algorithms.wind import Wind, proximal
from components.run_config import RunConfig, parse
from components.stages.in_process import Pipeline
from support.tensors import tensor

CONFIGS = Path(__file__).parents[2] / "flows" / "configs"


def token_group(log_ratio, lengths, *, reward, gap=0.0, win_rate=None):
    """One prompt with responses of these lengths; every token is at `log_ratio` from pi_t and at -gap from pi_ref."""
    m, longest = len(lengths), max(lengths)
    mask = tensor([[[float(t < length) for t in range(longest)] for length in lengths]])
    old = -1.0 * mask
    logp = (old + tensor(log_ratio).expand(1, m, longest)) * mask
    tokens = Tokens(logp, old, (logp + gap) * mask, mask, mean_length=sum(lengths) / m)
    rate = tensor([win_rate or [0.5] * m])
    reward = None if reward is None else tensor([reward])
    return Group(logp.sum(-1), old.sum(-1), tokens.logp_ref.sum(-1), rate, reward, tokens)


def gradient(algorithm, group):
    """Of the mean loss over responses, by token, (m, L)."""
    logp = group.tokens.logp.clone().requires_grad_()
    held = logp * group.tokens.mask
    loss = algorithm.loss(replace(group, logp=held.sum(-1), tokens=replace(group.tokens, logp=held)))
    (found,) = torch.autograd.grad(loss.mean(), logp)
    return found[0]


def assert_close(left, right):
    torch.testing.assert_close(left, tensor(right), rtol=0, atol=1e-12)


def test_advantages_by_hand():
    """Rewards 1, 0, 0, 1: mean 1/2, standard deviation sqrt(4·0.25 / 3) = 0.57735."""
    unit = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert_close(advantages(tensor([[1.0, 0.0, 0.0, 1.0]]), scaled=True), [[unit, -unit, -unit, unit]])
    assert_close(advantages(tensor([[1.0, 0.0, 0.0, 1.0]]), scaled=False), [[0.5, -0.5, -0.5, 0.5]])


def test_responses_that_tie_have_no_advantage():
    assert_close(advantages(tensor([[0.3, 0.3, 0.3]]), scaled=True), [[0.0, 0.0, 0.0]])


def test_leave_one_out_advantages_by_hand():
    """3 - (0 + 0)/2, 0 - (3 + 0)/2 twice."""
    assert_close(leave_one_out_advantages(tensor([[3.0, 0.0, 0.0]])), [[3.0, -1.5, -1.5]])


def test_grpo_counts_a_steps_tokens_alike():
    """At ratio 1 a response's loss is -A·length / mean length: of 1 and 3 tokens, mean 2."""
    group = token_group(0.0, [1, 3], reward=[1.0, 0.0])
    assert_close(Grpo(scale="none").loss(group), [[-0.5 * 1 / 2, 0.5 * 3 / 2]])


@pytest.mark.parametrize(("length", "expected"), [("response", [-0.5, 0.5]), ("constant", [-0.005, 0.015])])
def test_grpo_other_means(length, expected):
    group = token_group(0.0, [1, 3], reward=[1.0, 0.0])
    assert_close(Grpo(scale="none", length=length).loss(group), [expected])


@pytest.mark.parametrize(
    ("ratio", "clipped"),
    [
        (1.1, [False, False]),
        (1.3, [True, False]),  # the better response has risen enough; the worse one rose, and is pulled back
        (0.7, [False, True]),
    ],
)
def test_grpo_gradient_is_the_clipped_policy_gradient(ratio, clipped):
    """-A·r / (2 responses · mean length 2) at each token, nothing where clipped or behind a response's end."""
    found = gradient(Grpo(scale="none"), token_group(math.log(ratio), [1, 3], reward=[1.0, 0.0]))
    better = 0.0 if clipped[0] else -0.5 * ratio / 4
    worse = 0.0 if clipped[1] else 0.5 * ratio / 4
    assert_close(found, [[better, 0.0, 0.0], [worse, worse, worse]])


def test_grpo_kl_term_by_hand():
    """beta·(exp(d) - d - 1) with d = log pi_ref - log pi = 0.4 of 2 tokens; rewards tie. Slope beta·(1 - exp(d))."""
    group = token_group(0.0, [2, 2], reward=[1.0, 1.0], gap=0.4)
    value = 0.1 * (math.exp(0.4) - 1.4)
    assert_close(Grpo(beta=0.1).loss(group), [[value, value]])
    slope = 0.1 * (1 - math.exp(0.4)) / 4
    assert_close(gradient(Grpo(beta=0.1), group), [[slope, slope], [slope, slope]])


@pytest.mark.parametrize("reward", [None, [math.nan, math.nan]])
def test_win_rates_stand_in_for_rewards(reward):
    group = token_group(0.0, [1, 1], reward=reward, win_rate=[0.75, 0.25])
    assert_close(Grpo(scale="none").loss(group), [[-0.25, 0.25]])


def test_rloo_by_hand():
    """Rewards 1 and 0 less beta·(log pi_t - log pi_ref) = 0.5·(-0.2) and 0.5·(-0.6): 1.1, 0.3; advantages ±0.8."""
    group = token_group(0.0, [1, 3], reward=[1.0, 0.0], gap=0.2)
    assert_close(Rloo(beta=0.5).loss(group), [[-0.8, 0.8]])
    assert_close(gradient(Rloo(beta=0.5), group), [[-0.4, 0.0, 0.0], [0.4, 0.4, 0.4]])


def test_rloo_clips_whole_responses():
    """Three tokens at ratio 1.1 are a response at 1.331: the better one is cut off, of one token it is not."""
    group = token_group(math.log(1.1), [3, 3], reward=[1.0, 0.0])
    better, worse = gradient(Rloo(beta=0.0), group)
    assert_close(better, [0.0, 0.0, 0.0])
    assert_close(worse, [1.331 / 2] * 3)


def test_clip_leaves_the_value_and_the_first_gradient_alone():
    group = token_group(0.0, [1, 3], reward=None, win_rate=[0.9, 0.1])
    plain, clipped = Wind(clip=None, eta=10.0), Wind(eta=10.0, clip=0.2)
    assert_close(clipped.loss(group), plain.loss(group).tolist())
    assert_close(gradient(clipped, group), gradient(plain, group).tolist())


def test_clip_stops_what_moved_towards_its_target():
    """eta 1000: far from their targets both. At ratio 0.7 the loser is left alone, the winner is still raised."""
    group = token_group(math.log(0.7), [1, 2], reward=None, win_rate=[0.9, 0.1])
    found = gradient(Wind(eta=1000.0, beta=0.0, clip=0.2), group)
    expected = gradient(Wind(clip=None, eta=1000.0, beta=0.0), group)
    assert (expected[0, 0] < 0) and (expected[1] > 0).all()
    assert_close(found, [expected[0].tolist(), [0.0, 0.0]])


def test_clip_does_not_hold_back_a_way_back():
    """A loser that fell past its target (eta 1: at most 1/2 nat) is raised again, however far its tokens moved."""
    group = token_group(-2.0, [1, 1], reward=None, win_rate=[0.9, 0.1])
    found = gradient(Wind(eta=1.0, beta=0.0, clip=0.2), group)
    assert_close(found, gradient(Wind(clip=None, eta=1.0, beta=0.0), group).tolist())


def test_proximal_looks_at_each_token():
    tokens = Tokens(
        logp=tensor([[[-1.0, -1.0, -0.5]]]),
        logp_old=tensor([[[-1.0, -0.5, -1.0]]]),
        logp_ref=tensor([[[-1.0, -1.0, -1.0]]]),
        mask=tensor([[[1.0, 1.0, 1.0]]]),
        mean_length=3.0,
    )
    logp = tokens.logp.clone().requires_grad_()
    group = Group(logp.sum(-1), *[tensor([[0.0]])] * 3, tokens=replace(tokens, logp=logp))
    for falls, expected in ((True, [1.0, 0.0, 1.0]), (False, [1.0, 1.0, 0.0])):
        found = proximal(group, torch.tensor([[falls]]), clip=0.2).logp
        assert found.item() == -2.5
        (slope,) = torch.autograd.grad(found.sum(), logp)
        assert slope[0, 0].tolist() == expected


@pytest.mark.thorough(but=["algorithm0"])
@pytest.mark.parametrize("algorithm", [{"name": "grpo", "beta": 0.04}, {"name": "rloo"}, {"name": "wind", "clip": 0.2}])
def test_runs_through_all_stages(algorithm, tmp_path):
    """Two iterations of the smoke preset in two passes each, of which the figures after each are known."""
    values = parse((CONFIGS / "smoke.yaml").read_text("utf-8"))
    values |= {"algorithm": algorithm, "training": {**values["training"], "epochs": 2}}
    config = RunConfig.model_validate(values)
    pipeline = Pipeline(config, str(tmp_path))
    history = pipeline.run(pipeline.start())
    assert history["algorithm"].tolist() == [algorithm["name"]] * 2
    figures = history[["risk_before", "risk_1", "risk_2", "winners_moved", "losers_moved", "kl"]]
    assert np.isfinite(figures.to_numpy()).all()
    assert (history["winners_moved"] > history["losers_moved"]).all()
