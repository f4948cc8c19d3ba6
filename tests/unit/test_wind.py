"""WIND's loss: arithmetic by hand, gradients, and the exact update as its minimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from components.algorithms import Group
from components.algorithms.wind import Wind, relative_logp


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def group_by_hand():
    """One prompt, K = 2, to be used with beta = 1/4 and eta = 2, so that beta·eta = 1/2.

    h = [1.5·logp - logp_old - 0.5·logp_ref] / 2
      = [1.5·(-2) + 1 + 0.5·4] / 2 = 0    and    [1.5·(-1) + 2 + 0.5·2] / 2 = 0.75
    """
    return Group(
        logp=tensor([[-2.0, -1.0]]),
        logp_old=tensor([[-1.0, -2.0]]),
        logp_ref=tensor([[-4.0, -2.0]]),
        win_rate=tensor([[0.75, 0.25]]),
    )


def test_constant_by_hand():
    """h + 1/2 - v = 0 + 0.5 - 0.75 = -0.25 and 0.75 + 0.5 - 0.25 = 1; squared 0.0625 and 1."""
    loss = Wind(beta=0.25, eta=2.0).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[0.0625, 1.0]]), rtol=0, atol=1e-15)


def test_baseline_shift_by_hand():
    """The target of h rises by 0.25: residuals -0.25 - 0.25 = -0.5 and 1 - 0.25 = 0.75."""
    loss = Wind(beta=0.25, eta=2.0, baseline_shift=0.25).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[0.25, 0.5625]]), rtol=0, atol=1e-15)


def test_loser_weight_by_hand():
    """Only the second response has v < 1/2: its loss of 1 counts 0.3 times."""
    loss = Wind(beta=0.25, eta=2.0, loser_weight=0.3).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[0.0625, 0.3]]), rtol=0, atol=1e-15)


def test_a_tie_is_no_loser():
    """v = 1/2 has full weight: h = 0, the residual with shift 0.5 is -0.5, its square 0.25."""
    zero = tensor([[-1.0]])
    loss = Wind(baseline_shift=0.5, loser_weight=0.1).loss(Group(zero, zero, zero, tensor([[0.5]])))
    assert loss.item() == 0.25


def test_monte_carlo_by_hand():
    """Exponents [eta·v - beta·eta·(logp_old - logp_ref)] / (1 + beta·eta):
    (2·0.75 - 0.5·3) / 1.5 = 0 and (2·0.25 - 0.5·0) / 1.5 = 1/3.

    Z = (1 + e^(1/3)) / 2, c = (1.5 / 2)·log Z, residuals 0 + c - 0.75 and 0.75 + c - 0.25.
    """
    c = 0.75 * math.log((1 + math.exp(1 / 3)) / 2)
    loss = Wind(beta=0.25, eta=2.0, normalizer="monte_carlo").loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[(c - 0.75) ** 2, (c + 0.5) ** 2]]), rtol=0, atol=1e-15)


def test_monte_carlo_takes_each_prompt_for_itself():
    one, two = group_by_hand(), group_by_hand()
    both = Group(*(torch.cat([getattr(one, f), getattr(two, f) / 2]) for f in Group.__dataclass_fields__))
    wind = Wind(beta=0.25, eta=2.0, normalizer="monte_carlo")
    torch.testing.assert_close(wind.loss(both)[:1], wind.loss(one), rtol=0, atol=1e-15)


def test_beta_zero_ignores_the_reference():
    """h = (logp - logp_old) / eta = (-1 / 2, 1 / 2): residuals -0.5 + 0.5 - 0.75 and 0.5 + 0.5 - 0.25."""
    group = group_by_hand()
    for ref in (group.logp_ref, group.logp_ref - 100):
        loss = Wind(beta=0.0, eta=2.0).loss(Group(group.logp, group.logp_old, ref, group.win_rate))
        torch.testing.assert_close(loss, tensor([[0.5625, 0.5625]]), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 0.0, "eta": 0.5},
        {"normalizer": "monte_carlo", "eta": 1.0, "beta": 0.5},
        {"baseline_shift": 0.3, "loser_weight": 0.3},
    ],
)
def test_gradient_matches_finite_differences(settings):
    rng = np.random.default_rng(0)
    logp, old, ref = (tensor(rng.normal(-20, 3, (3, 4))) for _ in range(3))
    win_rate = tensor(rng.random((3, 4)))
    wind = Wind(**settings)
    assert torch.autograd.gradcheck(
        lambda logp: wind.loss(Group(logp, old, ref, win_rate)), logp.requires_grad_(), atol=1e-7, rtol=1e-6
    )


# A game over six responses that is not transitive: 0 beats 1 beats 2 beats 0, and with ties.
GAME = np.array(
    [
        [0.5, 0.9, 0.1, 0.5, 0.7, 1.0],
        [0.1, 0.5, 0.8, 0.5, 0.5, 0.6],
        [0.9, 0.2, 0.5, 0.3, 0.5, 0.9],
        [0.5, 0.5, 0.7, 0.5, 0.0, 0.5],
        [0.3, 0.5, 0.5, 1.0, 0.5, 0.2],
        [0.0, 0.4, 0.1, 0.5, 0.8, 0.5],
    ]
)
COUNTS = np.array([1, 2, 3, 4, 5, 5])
PI_OLD = COUNTS / COUNTS.sum()
PI_REF = np.array([0.3, 0.1, 0.15, 0.05, 0.2, 0.2])


def exact_update(beta, eta):
    """pi_{t+1} = [pi_t · pi_ref^(beta·eta) · exp(eta·P(· > pi_t))]^(1 / (1 + beta·eta)) / Z, and Z."""
    win_rate = GAME @ PI_OLD
    unnormalised = (PI_OLD * PI_REF ** (beta * eta) * np.exp(eta * win_rate)) ** (1 / (1 + beta * eta))
    return unnormalised / unnormalised.sum(), unnormalised.sum()


def minimiser(risk):
    """The tabular softmax policy at which the mean of `risk` over y ~ pi_t is least, by LBFGS in fp64.

    Each response stands in the group in proportion to pi_t, so the plain mean is the exact expectation.
    """
    responses = np.repeat(np.arange(len(GAME)), COUNTS)
    fixed = [tensor(a[responses])[None] for a in (np.log(PI_OLD), np.log(PI_REF), GAME @ PI_OLD)]
    logits = tensor(np.zeros(len(GAME))).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = risk(Group(torch.log_softmax(logits, 0)[responses][None], *fixed)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.softmax(logits.detach(), 0).numpy()


def total_variation(p, q):
    return np.abs(p - q).sum() / 2


GAMES = [(0.3, 2.0), (0.02, 10.0), (0.0, 4.0)]  # beta, eta


@pytest.mark.parametrize(("beta", "eta"), GAMES)
def test_monte_carlo_lands_on_the_exact_update(beta, eta):
    policy = minimiser(Wind(beta=beta, eta=eta, normalizer="monte_carlo").loss)
    exact, _ = exact_update(beta, eta)
    assert total_variation(exact, PI_OLD) > 0.05
    assert total_variation(policy, exact) < 1e-4


@pytest.mark.parametrize(("beta", "eta"), GAMES)
def test_exact_normaliser_lands_on_the_exact_update(beta, eta):
    exact, z = exact_update(beta, eta)
    c = (1 + beta * eta) / eta * math.log(z)
    policy = minimiser(lambda g: (relative_logp(g, beta=beta, eta=eta) + c - g.win_rate).square())
    assert total_variation(policy, exact) < 1e-4


def test_constant_lands_on_the_exact_update_as_eta_falls():
    """A wrong c moves log pi by a constant that normalisation takes back; what remains is of order eta².

    The update itself is of order eta, so the error vanishes beside it.
    """
    etas = np.array([0.4, 0.2, 0.1, 0.05, 0.025])
    errors, moves = [], []
    for eta in etas:
        exact, _ = exact_update(0.3, eta)
        errors.append(total_variation(minimiser(Wind(beta=0.3, eta=eta).loss), exact))
        moves.append(total_variation(exact, PI_OLD))
    slope = np.polyfit(np.log(etas), np.log(errors), 1)[0]
    assert slope > 1.8
    assert errors[-1] < 1e-4
    assert errors[-1] < 0.01 * moves[-1]
