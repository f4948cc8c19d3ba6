"""Where iterations of WIND's loss end with small groups: at the equilibrium, or how far from it.

One iteration's minimiser is the matter of test_properties.py, whose game and helpers are used here.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from test_properties import GAME, PI_REF, tensor, total_variation

from components.algorithms import Group, Tokens, leave_one_out
from components.algorithms.wind import Wind, relative_logp


def equilibrium(beta):
    """pi* ∝ pi_ref·exp(P(· > pi*)/beta), by damped steps towards the best response."""
    logits = np.log(PI_REF)
    for _ in range(20_000):
        pi = np.exp(logits)
        response = np.log(PI_REF) + GAME @ (pi / pi.sum()) / beta
        logits = logits - np.log(pi.sum()) + 0.05 * (response - response.max() - logits)
    return np.exp(logits) / np.exp(logits).sum()


def fixed_point(loss, k):
    """The policy that is the minimiser over all groups of its own K draws: where the loss has no gradient."""
    responses = np.array(list(itertools.product(range(len(GAME)), repeat=k)))
    win_rate = tensor(leave_one_out(GAME[responses[:, :, None], responses[:, None, :]]))
    log_ref = np.log(PI_REF)
    log_pi = log_ref
    for _ in range(1000):
        pi = np.exp(log_pi)
        logits = tensor(log_pi).requires_grad_()
        logp = torch.log_softmax(logits, 0)[responses]
        group = Group(logp, tensor(log_pi[responses]), tensor(log_ref[responses]), win_rate)
        (tensor(pi[responses].prod(1)) * loss(group).mean(1)).sum().backward()
        slope = logits.grad.numpy() / pi
        log_pi = log_pi - 0.3 * slope
        log_pi -= np.log(np.exp(log_pi).sum())
        if np.abs(slope).max() < 1e-9:
            return np.exp(log_pi)
    raise AssertionError(f"no fixed point: the slope is still {np.abs(slope).max()}")


def with_own_log_ratio(group, beta, eta):
    """The squared risk with c by the plain mean over the group."""
    scale = 1 + beta * eta
    exponent = (eta * group.win_rate - beta * eta * (group.logp_old - group.logp_ref)) / scale
    c = scale / eta * (exponent.logsumexp(-1, keepdim=True) - math.log(exponent.shape[-1]))
    return (relative_logp(group, beta=beta, eta=eta) + c - group.win_rate).square()


# Bounds are the distances at beta = 0.3, rounded up; that of the reference from the equilibrium is 0.145.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("risk", "k", "bound"), [("squared", 2, 0.012), ("squared", 4, 0.003), ("kl", 2, 0.035), ("nce", 2, 0.06)]
)
def test_monte_carlo_plays_with_beta_at_small_groups(risk, k, bound):
    star = equilibrium(0.3)
    assert total_variation(star, PI_REF) > 0.14
    policy = fixed_point(Wind(clip=None, risk=risk, normalizer="monte_carlo", beta=0.3, eta=1.0).loss, k)
    assert total_variation(policy, star) < bound


@pytest.mark.parametrize(("k", "moved"), [(2, 0.05), (4, 0.035)])
def test_loser_weight_moves_the_fixed_point_and_the_shift_alone_does_not(k, moved):
    """At beta = 0.3, eta = 1. `moved` is the distance that was measured with a weight of 0.1."""
    star = equilibrium(0.3)
    for settings, distance in (({}, 0), ({"baseline_shift": 0.3}, 0), ({"loser_weight": 0.1}, moved)):
        policy = fixed_point(Wind(clip=None, beta=0.3, eta=1.0, **settings).loss, k)
        assert total_variation(policy, star) == pytest.approx(distance, abs=1e-3)


def of_chosen(wind):
    """The loss over the responses that are trained on."""

    def loss(group):
        chosen = torch.as_tensor(wind.select(group.win_rate.numpy()))
        parts = (group.logp, group.logp_old, group.logp_ref, group.win_rate)
        return wind.loss(Group(*(part.gather(1, chosen) for part in parts)))

    return loss


@pytest.mark.parametrize(("k", "kept", "moved"), [(2, 1, 0.071), (4, 1, 0.080), (4, 2, 0.034)])
def test_the_best_alone_move_the_fixed_point(k, kept, moved):
    """`moved` as measured, at beta = 0.3 and eta = 1. Without a gradient, q·(h + 1/2 - E[v given chosen])/pi is one for
    all responses, where q is how often each is chosen: q and E are counted here over all groups.
    """
    wind = Wind(clip=None, beta=0.3, eta=1.0, trained_responses=kept, trained_part="best")
    policy = fixed_point(of_chosen(wind), k)
    assert total_variation(policy, equilibrium(0.3)) == pytest.approx(moved, abs=1e-3)
    chosen, won = np.zeros(len(GAME)), np.zeros(len(GAME))
    for group in itertools.product(range(len(GAME)), repeat=k):
        win_rate = [(GAME[one, group].sum() - 0.5) / (k - 1) for one in group]
        for i in sorted(range(k), key=lambda i: -win_rate[i])[:kept]:
            chosen[group[i]] += policy[[*group]].prod()
            won[group[i]] += policy[[*group]].prod() * win_rate[i]
    level = (chosen * (0.3 * np.log(policy / PI_REF) + 0.5) - won) / policy
    assert level == pytest.approx(np.full(len(GAME), level[0]), abs=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("k", [2, 3])
def test_the_own_log_ratio_in_c_would_lower_beta(k):
    """To beta·(K - 1)/K, but for the noise of v that `monte_carlo` has too."""
    wrong = fixed_point(lambda group: with_own_log_ratio(group, 0.3, 1.0), k)
    right = fixed_point(Wind(clip=None, normalizer="monte_carlo", beta=0.3, eta=1.0).loss, k)
    assert total_variation(wrong, equilibrium(0.3 * (k - 1) / k)) < 0.021
    assert total_variation(wrong, equilibrium(0.3)) > 8 * total_variation(right, equilibrium(0.3))


@pytest.mark.thorough
@pytest.mark.parametrize(("clip", "eta", "rate", "stays"), [(0.2, 4.0, 1.0, False), (0.02, 1.0, 0.3, True)])
def test_clip_keeps_the_fixed_point_unless_single_steps_exceed_it(clip, eta, rate, stays):
    """200 iterations of eight steps at beta 0.3. The first iteration moves some response by more than the clip.

    Clipped where they won and pushed down where they lost, responses whose single step is larger than the clip never
    leave the reference.
    """
    wind, log_ref, k = Wind(beta=0.3, eta=eta, clip=clip), np.log(PI_REF), 2
    responses = np.array(list(itertools.product(range(len(GAME)), repeat=k)))
    win_rate = tensor(leave_one_out(GAME[responses[:, :, None], responses[:, None, :]]))
    log_pi, moved = log_ref, 0.0
    for iteration in range(200):
        log_old, pi = log_pi, np.exp(log_pi)
        for _ in range(8):
            logits = tensor(log_pi).requires_grad_()
            logp = torch.log_softmax(logits, 0)[responses]
            old, ref = tensor(log_old[responses]), tensor(log_ref[responses])
            tokens = Tokens(*(a[..., None] for a in (logp, old, ref, torch.ones_like(old))), mean_length=1.0)
            group = Group(logp, old, ref, win_rate, tokens=tokens)
            (tensor(pi[responses].prod(1)) * wind.loss(group).mean(1)).sum().backward()
            log_pi = log_pi - rate * logits.grad.numpy() / pi
            log_pi -= np.log(np.exp(log_pi).sum())
            moved = max(moved, float(np.abs(np.exp(log_pi - log_old) - 1).max())) if iteration == 0 else moved
    assert moved > clip
    star = equilibrium(0.3)
    if stays:
        assert total_variation(np.exp(log_pi), star) > 0.9 * total_variation(PI_REF, star)
    else:
        assert total_variation(np.exp(log_pi), star) < 1e-9
