"""BOND and J-BOND by hand, and the distributions at which their iterations end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from components.algorithms import FreshGroup, Group
from components.algorithms.bond import Bond
from components.algorithms.jbond import JBond, centred
from support.tensors import tensor


def assert_close(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=1e-14)


def test_bond_is_the_negative_log_prob_of_the_best():
    win_rate = np.array([[0.2, 0.9, 0.4], [0.5, 0.1, 0.9]])
    assert Bond().select(win_rate).tolist() == [[1], [2]]
    logp = tensor([[-3.0], [-5.0]])
    assert_close(Bond().loss(Group(logp, logp, logp, tensor([[0.9], [0.9]]))), tensor([[3.0], [5.0]]))


def test_bond_with_reference_takes_all_the_best_first():
    win_rate = np.array([[0.2, 0.9, 0.4], [0.9, 0.1, 0.5], [0.1, 0.2, 0.7]])
    assert Bond(alpha=0.1).select(win_rate).tolist() == [[1, 0, 2], [0, 1, 2], [2, 0, 1]]


def test_bond_with_reference_by_hand():
    """pi_ref/pi_t = (1, 3), normalised (1/4, 3/4); with alpha = 0.4 the weights are 0.6 + 0.1 and 0.3, times m = 2."""
    group = Group(tensor([[-1.0, -2.0]]), tensor([[0.0, 0.0]]), tensor([[0.0, math.log(3)]]), tensor([[1.0, 0.0]]))
    assert_close(Bond(alpha=0.4).loss(group), tensor([[1.4, 1.2]]))


def mass_after_an_iteration(alpha, k, q):
    """Of the worse of two responses, of which pi_t holds q and the reference 1/2: BOND's target over all 2^K groups.

    The weights of the cross-entropy are read off a loss with log pi_theta = -1.
    """
    log_old, log_ref = np.log([q, 1 - q]), np.log([0.5, 0.5])
    mass = 0.0
    for drawn in itertools.product([0, 1], repeat=k):
        responses = np.array([drawn])
        wins = [(sum(mine > other for other in drawn) + (drawn.count(mine) - 1) / 2) / (k - 1) for mine in drawn]
        picked = np.take_along_axis(responses, Bond(alpha=alpha).select(np.array([wins])), 1)
        parts = (-np.ones(picked.shape), log_old[picked], log_ref[picked], np.zeros(picked.shape))
        weights = Bond(alpha=alpha).loss(Group(*map(tensor, parts))).numpy() / picked.shape[1]
        mass += np.exp(log_old[list(drawn)].sum()) * weights[picked == 0].sum()
    return mass


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.6])
def test_bonds_mixture_multiplies_a_rare_responses_mass_by_k_alpha(alpha, k):
    """It is drawn with probability K·q and then has nearly all of the reference's part, alpha.

    With alpha < 1/K its mass falls in each iteration; the mixture with exact weights would give it alpha/2 at once.
    """
    assert mass_after_an_iteration(alpha, k, 1e-7) / 1e-7 == pytest.approx(k * alpha, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_bond_lands_on_the_mixture_of_best_of_n_and_reference(alpha):
    """Three responses, K = 2, all nine ordered groups with their probabilities: the minimiser is found by LBFGS.

    With uniform pi_ref/pi_t the importance weights are exact at any K, so pi_ref = pi_t here.
    """
    old, reward = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 2.0])
    target = np.zeros(3)
    rows, chances = [], []
    for i in range(3):
        for j in range(3):
            target[i if reward[i] >= reward[j] else j] += old[i] * old[j]
            rows.append((i, j))
            chances.append(old[i] * old[j])
    target = (1 - alpha) * target + alpha * old
    responses = np.array(rows)
    scores = reward[responses]
    win_rate = (np.sign(scores - scores[:, ::-1]) + 1) / 2
    bond = Bond(alpha=alpha)
    picked = np.take_along_axis(responses, bond.select(win_rate), 1)
    logits = tensor(np.zeros(3)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        fixed = tensor(np.log(old)[picked])
        loss = bond.loss(Group(logits.log_softmax(0)[picked], fixed, fixed, tensor(np.zeros(picked.shape))))
        total = loss.mean(1) @ tensor(chances)
        total.backward()
        return total

    optimizer.step(closure)
    np.testing.assert_allclose(logits.softmax(0).detach(), target, atol=1e-7)


def test_centred_by_hand():
    """1, 2 and 6 less the means of the others: 4, 3.5 and 1.5."""
    assert_close(centred(tensor([1.0, 2.0, 6.0])), tensor([-3.0, -1.5, 4.5]))
    assert centred(tensor([3.0])).tolist() == [3.0]


def preference(*rewards):
    """(1, 3, 3) of the rewards of y, y1 and y2."""
    values = tensor(rewards)
    return ((values[:, None] - values).sign()[None] + 1) / 2


def test_jbond_by_hand():
    """Two prompts with log-ratios 1 and -1. In the first y is worse than both, in the second it ties with y1.

    Returns are -log 16 - 1 and 1; each less the other, -(log 16 + 2) and log 16 + 2. With b = 0.25 and g = 0.5 the
    weight of y is 0.5·(1 - -1) + 0.25·(log 16 + 2) and its negative; the best of y1, y2 gets -0.75.
    """
    group = FreshGroup(
        logp=tensor([-2.0, -4.0]),
        logp_anchor=tensor([-3.0, -3.0]),
        preference=torch.cat([preference(0.0, 1.0, 2.0), preference(1.0, 1.0, 0.5)]),
    )
    weights = JBond(backward_weight=0.25, kl_weight=0.5).weights(group)
    own = 1 + 0.25 * (math.log(16) + 2)
    assert_close(weights, tensor([[own, 0.0, -0.75], [-own, -0.75, 0.0]]))


@pytest.mark.parametrize("rewards", [(0.0, 1.0, 0.0), (0.5, 0.5, 0.5), (2.0, 1.0, 0.0)])
def test_only_a_response_worse_than_both_is_beaten(rewards):
    """Alone in its batch with log-ratio 0, y has the weight -b·r: 0 unless it is beaten."""
    zero = tensor([0.0])
    weights = JBond().weights(FreshGroup(zero, zero, preference(*rewards)))
    assert weights[0, 0] == 0
    assert JBond().weights(FreshGroup(zero, zero, preference(-1.0, 1.0, 0.0)))[0, 0] == pytest.approx(math.log(4))


def test_jbond_descends_along_the_expected_gradient():
    """Tabular policies over three responses, all 27 triples with their probabilities, against autograd on the KLs.

    The expected step without baselines is the gradient of (1-b)·KL(best of two || pi) + b·KL(pi || J-target) +
    g·KL(pi || anchor), where E_{y~pi}[R·∇log pi] belongs to the backward part. Baselines do not move the mean: here
    the batch is one prompt, so `centred` leaves the values alone.
    """
    b, g = 0.3, 0.7
    reward, anchor = np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.3, 0.2])
    logits = tensor([0.3, -0.2, 0.1]).requires_grad_()
    pi = logits.softmax(0).detach().numpy()
    total = torch.zeros((), dtype=torch.float64)
    forward = backward = torch.zeros((), dtype=torch.float64)
    logp = logits.log_softmax(0)
    algorithm = JBond(backward_weight=b, kl_weight=g)
    for y in range(3):
        for y1 in range(3):
            for y2 in range(3):
                chance = pi[y] * anchor[y1] * anchor[y2]
                known = FreshGroup(
                    tensor([np.log(pi[y])]), tensor([np.log(anchor[y])]), preference(*reward[[y, y1, y2]])
                )
                weights = algorithm.weights(known)[0]
                total = total + chance * (weights * logp[[y, y1, y2]]).sum()
                winner = y1 if reward[y1] >= reward[y2] else y2
                forward = forward - chance * logp[winner]
                beaten = -math.log(16) if reward[y] < min(reward[y1], reward[y2]) else 0.0
                chance_of_rivals = anchor[y1] * anchor[y2]
                backward = backward - chance_of_rivals * logp.exp()[y] * beaten
    kl = (logp.exp() * (logp - tensor(np.log(anchor)))).sum()
    expected = (1 - b) * forward + b * (backward + kl) + g * kl
    ours, exact = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (total, expected))
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-12)
