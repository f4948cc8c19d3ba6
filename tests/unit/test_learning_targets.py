"""Where each algorithm's loss is least, which is what training is measured by."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.algorithms import Algorithm, Group, leave_one_out
from components.algorithms.bond import Bond
from components.algorithms.dpo import Dpo
from components.algorithms.ipo import Ipo
from components.algorithms.sppo import Sppo
from components.algorithms.wind import Wind
from support.tensors import tensor


def random_group(m, *, n=5, seed=0):
    """Win rates of random preferences, so that their mean over all m is 1/2."""
    rng = np.random.default_rng(seed)
    wins = np.triu(rng.uniform(size=(n, m, m)), 1)
    preference = wins + np.tril(1 - wins.swapaxes(1, 2), -1)
    old = rng.normal(-8, 2, size=(n, m))
    ref = old + rng.normal(size=(n, m))
    return Group(tensor(old), tensor(old), tensor(ref), tensor(leave_one_out(preference)))


def minimised(algorithm, group):
    """The log-probs where Newton's own descent (L-BFGS) from log pi_t ends."""
    logp = group.logp_old.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [logp], lr=1, max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        loss = algorithm.loss(replace(group, logp=logp)).mean()
        loss.backward()
        return loss

    for _ in range(5):
        search.step(closure)
    return logp.detach()


WINDS = [
    Wind(clip=None, risk=risk, normalizer=normalizer, beta=0.3, eta=2.0, baseline_shift=shift, loser_weight=weight)
    for risk, normalizer in itertools.product(["squared", "kl", "nce"], ["constant", "monte_carlo", "mixed", "group"])
    for shift, weight in [(0.0, 1.0), (0.0 if normalizer == "group" else 0.2, 0.3)]
]


WINDS.append(Wind(clip=None, normalizer="mixed", mean_normalizer="constant", baseline_shift=0.1))


@pytest.mark.thorough(but=["algorithm0"])
@pytest.mark.parametrize("algorithm", WINDS)
@pytest.mark.parametrize("m", [2, 4])
def test_winds_loss_is_least_at_its_target(algorithm, m):
    """Descent from log pi_t finds it, for `group` but for the level, which the loss does not see."""
    group = random_group(m)
    target, found = algorithm.target(group), minimised(algorithm, group)
    if algorithm.normalizer == "group":
        target, found = (value - value.mean(1, keepdim=True) for value in (target, found))
    torch.testing.assert_close(found, target, rtol=0, atol=2e-5)


def test_the_groups_target_is_the_nearest_of_all_minima():
    """All minima differ by a level; moving by levels of mean 0 is shortest. One of them has no other mean."""
    group = random_group(4)
    move = Wind(clip=None, normalizer="group").target(group) - group.logp_old
    torch.testing.assert_close(move.mean(1), tensor([0.0] * 5), rtol=0, atol=1e-12)


def test_winds_target_by_hand():
    """beta = 1/4, eta = 2, so beta·eta = 1/2: h = v - 1/2 = (0.25, -0.25), and log pi_theta =
    (2·0.25 - 1 + 0.5·(-4)) / 1.5 = -5/3 and (2·(-0.25) - 2 + 0.5·(-2)) / 1.5 = -7/3."""
    group = Group(tensor([[9.0, 9.0]]), tensor([[-1.0, -2.0]]), tensor([[-4.0, -2.0]]), tensor([[0.75, 0.25]]))
    torch.testing.assert_close(Wind(clip=None, beta=0.25, eta=2.0).target(group), tensor([[-5 / 3, -7 / 3]]))


def test_the_baselines_targets():
    """SPPO: eta·(v - 1/2) away. IPO at beta = 1/4 wants a margin of 2; log pi_t has (-1 + 4) - (-4 + 2) = 5, so the
    winner goes down by 1.5 and the loser up. Those of a tie stay. BOND and DPO want ever more."""
    group = Group(tensor([[9.0, 9.0]]), tensor([[-1.0, -4.0]]), tensor([[-4.0, -2.0]]), tensor([[0.75, 0.25]]))
    torch.testing.assert_close(Sppo(eta=2.0).target(group), tensor([[-0.5, -4.5]]))
    torch.testing.assert_close(Ipo(beta=0.25).target(group), tensor([[-2.5, -2.5]]))
    tie = replace(group, win_rate=tensor([[0.5, 0.5]]))
    torch.testing.assert_close(Ipo(beta=0.25).target(tie), group.logp_old)
    assert Bond().target(group) is None
    assert Dpo().target(group) is None


@pytest.mark.parametrize("algorithm", [Sppo(eta=3.0), Ipo(beta=0.7)])
def test_the_baselines_losses_are_least_there(algorithm):
    """By descent from log pi_t, which for IPO moves both of a pair alike, and so to the nearest minimum."""
    group = random_group(2)
    fields = (group.logp, group.logp_old, group.logp_ref, group.win_rate)
    group = Group(*(field.gather(1, group.win_rate.argsort(1, descending=True)) for field in fields))
    torch.testing.assert_close(minimised(algorithm, group), algorithm.target(group), rtol=0, atol=1e-5)


def test_an_algorithm_without_a_target_needs_no_method():
    class Plain(Algorithm):
        name: str = "plain"

        def loss(self, group):
            return -group.logp

    assert Plain().target(random_group(2)) is None
