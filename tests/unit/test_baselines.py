"""The pairwise baselines by hand: which responses they take, and what they lose on them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from components.algorithms import Group, best, best_and_worst
from components.algorithms.dpo import Dpo
from components.algorithms.ipo import Ipo
from components.algorithms.sppo import Sppo
from components.algorithms.wind import Wind
from support.tensors import tensor


def pair(*, win_rate=(0.75, 0.25)):
    """Best and worst of one prompt: logp - logp_old = (-1, 1), logp - logp_ref = (2, -1), a margin of 3."""
    return Group(
        logp=tensor([[-2.0, -3.0]]),
        logp_old=tensor([[-1.0, -4.0]]),
        logp_ref=tensor([[-4.0, -2.0]]),
        win_rate=tensor([win_rate]),
    )


def assert_close(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=1e-14)


def test_best_and_worst_by_hand():
    """The first of the best and the last of the worst: two responses even where all tie."""
    win_rate = np.array([[0.1, 0.9, 0.9, 0.1], [0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5]])
    assert best_and_worst(win_rate).tolist() == [[1, 3], [0, 3], [0, 1]]
    assert best(win_rate).tolist() == [1, 0, 0]


@pytest.mark.parametrize("algorithm", [Sppo(), Dpo(), Ipo()])
def test_pairwise_algorithms_take_best_and_worst(algorithm):
    win_rate = np.random.default_rng(0).random((5, 6))
    assert np.array_equal(algorithm.select(win_rate), np.stack([win_rate.argmax(1), win_rate.argmin(1)], 1))


def test_sppo_by_hand():
    """(logp - logp_old)/eta - (v - 1/2) = -0.5 - 0.25 and 0.5 + 0.25: both 0.5625 when squared."""
    assert_close(Sppo(eta=2.0).loss(pair()), tensor([[0.5625, 0.5625]]))


def test_sppo_at_the_papers_scale_by_hand():
    """[-1 - 2·(3/4 - 1/2)]² and [1 - 2·(1/4 - 1/2)]²: both 1.5² = 2.25."""
    assert_close(Sppo(eta=2.0, paper_scale=True).loss(pair()), tensor([[2.25, 2.25]]))


def test_at_the_papers_scale_every_step_is_clipped_and_at_ours_hardly_one():
    """At the start d loss/d log pi, of a mean over the two of a pair, is eta·|v - 1/2| in the paper and
    |v - 1/2|/eta here.

    So with eta = 1000 and a gradient of log pi of norm 1 to 500, ours stays below 0.25 and the paper's above 250.
    """
    logp = tensor([[-400.0, -400.0]]).requires_grad_()
    fixed = logp.detach()
    for scale, expected in ((False, 0.5 / 1000), (True, 0.5 * 1000)):
        loss = Sppo(eta=1000.0, paper_scale=scale).loss(Group(logp, fixed, fixed, tensor([[1.0, 0.0]]))).mean()
        (gradient,) = torch.autograd.grad(loss, logp)
        torch.testing.assert_close(gradient.abs(), torch.full_like(gradient, expected), rtol=1e-12, atol=0)


def test_the_sppo_preset_has_the_papers_scale():
    preset = Path(__file__).parents[2] / "flows" / "configs" / "llama3_8b_sppo.yaml"
    assert yaml.safe_load(preset.read_text("utf-8"))["algorithm"] == {
        "name": "sppo",
        "eta": 1000.0,
        "paper_scale": True,
    }


def test_sppo_is_wind_without_reference_on_best_and_worst():
    """Property 7: the same gradient for every response, from the same K, whatever the reference."""
    rng = np.random.default_rng(0)
    n, k, eta = 7, 5, 4.0
    full = [tensor(rng.normal(-10, 2, (n, k))) for _ in range(3)]
    win_rate = rng.random((n, k))
    indices = torch.from_numpy(Sppo().select(win_rate))

    def gradient(loss):
        logp = full[0].clone().requires_grad_()
        parts = [a.gather(1, indices) for a in (logp, full[1], full[2], tensor(win_rate))]
        loss(Group(*parts)).mean().backward()
        return logp.grad

    expected = gradient(Wind(clip=None, beta=0.0, eta=eta).loss)
    assert (expected != 0).sum() == 2 * n
    torch.testing.assert_close(gradient(Sppo(eta=eta).loss), expected, rtol=0, atol=1e-15)


def test_dpo_by_hand():
    """beta·margin = 0.5·3: -log sigmoid(1.5) = log(1 + e^-1.5), once for each of the pair."""
    assert_close(Dpo(beta=0.5).loss(pair()), torch.full((1, 2), math.log1p(math.exp(-1.5)), dtype=torch.float64))


def test_ipo_by_hand():
    """1/(2·0.25) = 2, and (3 - 2)² = 1."""
    assert_close(Ipo(beta=0.25).loss(pair()), tensor([[1.0, 1.0]]))


@pytest.mark.parametrize("algorithm", [Dpo(), Ipo()])
def test_a_tied_pair_teaches_nothing(algorithm):
    logp = tensor([[-2.0, -3.0]]).requires_grad_()
    tied = Group(logp, logp.detach(), tensor([[-4.0, -2.0]]), tensor([[0.5, 0.5]]))
    loss = algorithm.loss(tied)
    loss.mean().backward()
    assert loss.tolist() == [[0.0, 0.0]]
    assert logp.grad.tolist() == [[0.0, 0.0]]
