"""WIND's loss: arithmetic by hand, gradients, and what the config refuses.

That its minimiser is the exact update is shown in test_properties.py.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.algorithms import Group, leave_one_out
from components.algorithms.wind import Wind, relative_logp
from support.tensors import tensor


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
    loss = Wind(clip=None, beta=0.25, eta=2.0).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[0.0625, 1.0]]), rtol=0, atol=1e-15)


def test_baseline_shift_by_hand():
    """The target of h rises by 0.25: residuals -0.25 - 0.25 = -0.5 and 1 - 0.25 = 0.75."""
    loss = Wind(clip=None, beta=0.25, eta=2.0, baseline_shift=0.25).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[0.25, 0.5625]]), rtol=0, atol=1e-15)


def test_loser_weight_by_hand():
    """Only the second response has v < 1/2: its loss of 1 counts 0.3 times."""
    loss = Wind(clip=None, beta=0.25, eta=2.0, loser_weight=0.3).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[0.0625, 0.3]]), rtol=0, atol=1e-15)


def test_a_tie_is_no_loser():
    """v = 1/2 has full weight: h = 0, the residual with shift 0.5 is -0.5, its square 0.25."""
    zero = tensor([[-1.0]])
    loss = Wind(clip=None, baseline_shift=0.5, loser_weight=0.1).loss(Group(zero, zero, zero, tensor([[0.5]])))
    assert loss.item() == 0.25


def test_monte_carlo_by_hand():
    """Exponents [eta·v - beta·eta·log_ratio] / (1 + beta·eta), where log_ratio = logp_old - logp_ref is 3 and 0, and in
    a response's own exponent that of the other.

    For the first: own (2·0.75 - 0.5·0) / 1.5 = 1, the other's (2·0.25 - 0.5·0) / 1.5 = 1/3.
    For the second: own (2·0.25 - 0.5·3) / 1.5 = -2/3, the other's (2·0.75 - 0.5·3) / 1.5 = 0.

    Z is their mean exponential, c = (1.5 / 2)·log Z, residuals 0 + c - 0.75 and 0.75 + c - 0.25.
    """
    first = 0.75 * math.log((math.e + math.exp(1 / 3)) / 2)
    second = 0.75 * math.log((math.exp(-2 / 3) + 1) / 2)
    loss = Wind(clip=None, beta=0.25, eta=2.0, normalizer="monte_carlo").loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([[(first - 0.75) ** 2, (second + 0.5) ** 2]]), rtol=0, atol=1e-15)


def test_monte_carlo_of_three_takes_the_mean_of_the_other_two():
    """beta = eta = 1, all v = 1/2 and logp = logp_old: h = log_ratio / 1 = 1, 2, 6, for the second term of h is that.

    Exponents (1/2 - log_ratio) / 2, own log-ratios replaced by 4, 3.5 and 1.5; c = 2·log of their mean exponential.
    """
    ratio, replaced = [1.0, 2.0, 6.0], [4.0, 3.5, 1.5]
    old = tensor([[-3.0, -2.0, -1.0]])
    group = Group(old, old, old - tensor([ratio]), tensor([[0.5, 0.5, 0.5]]))
    expected = []
    for i in range(3):
        seen = [replaced[i] if j == i else ratio[j] for j in range(3)]
        c = 2 * math.log(sum(math.exp((0.5 - r) / 2) for r in seen) / 3)
        expected.append((ratio[i] + c - 0.5) ** 2)
    loss = Wind(clip=None, beta=1.0, eta=1.0, normalizer="monte_carlo").loss(group)
    torch.testing.assert_close(loss, tensor([expected]), rtol=0, atol=1e-14)


def test_beta_zero_ignores_the_reference():
    """h = (logp - logp_old) / eta = (-1 / 2, 1 / 2): residuals -0.5 + 0.5 - 0.75 and 0.5 + 0.5 - 0.25."""
    group = group_by_hand()
    for ref in (group.logp_ref, group.logp_ref - 100):
        loss = Wind(clip=None, beta=0.0, eta=2.0).loss(Group(group.logp, group.logp_old, ref, group.win_rate))
        torch.testing.assert_close(loss, tensor([[0.5625, 0.5625]]), rtol=0, atol=1e-15)


RISKS = {
    # log 2 and, from s = 3/4 with w = 16/3: 8/3·[(5/4 - 1/4)² - (3/4 - 1/4)²] = 2
    "kl": [math.log(2), 0.25 * math.log(4 / 3) + 0.75 * math.log(4) + 2],
    # 2s = 1 and 5/2, ratios to 1 + 2s of 1/2 and 5/7
    "nce": [2.5 * math.log(2), -0.5 * math.log(5 / 7) + math.log(3.5)],
}


@pytest.mark.parametrize("risk", RISKS)
def test_risk_by_hand(risk):
    """s = h + 1/2 = 1/2 and 5/4, v = 3/4 and 1/4; the logarithms end at eps = 1/4 from 0 and 1."""
    loss = Wind(clip=None, beta=0.25, eta=2.0, risk=risk, eps=0.25).loss(group_by_hand())
    torch.testing.assert_close(loss, tensor([RISKS[risk]]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("risk", RISKS)
def test_shift_is_a_lower_c(risk):
    """h moves by 1.5/2 of what logp does: with logp raised by 4/3·shift, the shift takes the rise of h back."""
    group = group_by_hand()
    raised = Group(group.logp + 0.25 * 4 / 3, group.logp_old, group.logp_ref, group.win_rate)
    shifted = Wind(clip=None, beta=0.25, eta=2.0, risk=risk, baseline_shift=0.25).loss(raised)
    torch.testing.assert_close(shifted, Wind(clip=None, beta=0.25, eta=2.0, risk=risk).loss(group), rtol=0, atol=1e-14)


def three_by_hand():
    """K = 3, beta = 0, eta = 1: h = logp - logp_old = 0, 0.3, 0.9. The means of the others are 0.6, 0.45, 0.15."""
    old = tensor([[-3.0, -2.0, -1.0]])
    return Group(old + tensor([[0.0, 0.3, 0.9]]), old, old, tensor([[1.0, 0.5, 0.0]]))


def test_group_by_hand():
    """s = 0 - 0.6, 0.3 - 0.45, 0.9 - 0.15, each + 1/2: -0.1, 0.35, 1.25. Residuals -1.1, -0.15, 1.25."""
    loss = Wind(clip=None, beta=0.0, eta=1.0, normalizer="group").loss(three_by_hand())
    torch.testing.assert_close(loss, tensor([[1.21, 0.0225, 1.5625]]), rtol=0, atol=1e-14)


def test_group_weighs_losers_less():
    """Only the third response has v < 1/2."""
    loss = Wind(clip=None, beta=0.0, eta=1.0, normalizer="group", loser_weight=0.4).loss(three_by_hand())
    torch.testing.assert_close(loss, tensor([[1.21, 0.0225, 0.625]]), rtol=0, atol=1e-14)


def test_group_is_the_loss_over_all_pairs():
    """Σ_i [s_i - v_i]² = K²/(K-1)²·1/(2K)·Σ_ij [(h_i - h_j) - (K-1)/K·(v_i - v_j)]², v leave-one-out among the K."""
    rng = np.random.default_rng(0)
    upper = np.triu(rng.random((5, 4, 4)), 1)
    v = leave_one_out(upper + np.triu(1 - upper, 1).swapaxes(1, 2) + np.eye(4) / 2)
    logp, old, ref = (tensor(rng.normal(-20, 3, (5, 4))) for _ in range(3))
    group = Group(logp, old, ref, tensor(v))
    h = relative_logp(group, beta=0.1, eta=5.0).numpy()
    pairs = (h[:, :, None] - h[:, None, :]) - 3 / 4 * (v[:, :, None] - v[:, None, :])
    expected = (4 / 3) ** 2 / 8 * (pairs**2).sum((1, 2))
    loss = Wind(clip=None, beta=0.1, eta=5.0, normalizer="group").loss(group).sum(1).numpy()
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_group_leaves_the_level_free_and_mixed_holds_it():
    group = three_by_hand()
    raised = Group(group.logp + 7, group.logp_old, group.logp_ref, group.win_rate)
    for risk in ("squared", "kl", "nce"):
        free, held = (Wind(clip=None, beta=0.0, eta=1.0, risk=risk, normalizer=n) for n in ("group", "mixed"))
        torch.testing.assert_close(free.loss(raised), free.loss(group), rtol=0, atol=1e-12)
        assert (held.loss(raised) > held.loss(group) + 0.1).all()


@pytest.mark.parametrize(
    ("settings", "mean_term"),
    [
        # mean of h + c - 1/2 = 0.4 + 1/2 - 1/2
        ({"mean_normalizer": "constant"}, 0.4**2),
        ({"mean_normalizer": "constant", "baseline_shift": 0.3}, 0.1**2),
        ({"mean_normalizer": "constant", "loser_weight": 0.4}, 0.4**2),
        ({"mean_normalizer": "monte_carlo"}, (0.4 + math.log((math.e + math.exp(0.5) + 1) / 3) - 0.5) ** 2),
        # of -v·log s - (1-v)·log(1-s) at v = 1/2 and s = 0.9
        ({"mean_normalizer": "constant", "risk": "kl"}, -0.5 * math.log(0.9) - 0.5 * math.log(0.1)),
    ],
)
def test_mixed_by_hand(settings, mean_term):
    """The group's loss plus 0.2 times the risk of the group's mean of h + c - shift against that of v, 1/2.

    With beta = 0 and eta = 1, Z is the mean of e^v. The group's part has a level already: no shift enters it.
    The mean is of winners and losers alike: no weight of losers enters its term.
    """
    shared = {key: settings[key] for key in ("risk", "loser_weight") if key in settings}
    grouped = Wind(clip=None, beta=0.0, eta=1.0, normalizer="group", **shared).loss(three_by_hand())
    loss = Wind(clip=None, beta=0.0, eta=1.0, normalizer="mixed", mean_weight=0.2, **settings).loss(three_by_hand())
    torch.testing.assert_close(loss - grouped, torch.full_like(loss, 0.2 * mean_term), rtol=0, atol=1e-14)


NORMALIZERS = [
    {"normalizer": "constant"},
    {"normalizer": "monte_carlo"},
    {"normalizer": "group"},
    {"normalizer": "mixed"},
    {"normalizer": "mixed", "mean_normalizer": "constant", "mean_weight": 0.7},
]
COMBINATIONS = [
    {"risk": risk, **normalizer, **extra}
    for risk, normalizer, extra in itertools.product(
        ["squared", "kl", "nce"], NORMALIZERS, [{}, {"baseline_shift": 0.3, "loser_weight": 0.3, "eta": 1.0}]
    )
    if not (normalizer["normalizer"] == "group" and "baseline_shift" in extra)
]


def random_group(seed, n=3, m=4):
    """Log-ratios of several nats: s lies between the ends of the logarithms and well beyond both."""
    rng = np.random.default_rng(seed)
    return Group(*(tensor(rng.normal(-20, 3, (n, m))) for _ in range(3)), tensor(rng.random((n, m))))


@pytest.mark.parametrize("settings", [*COMBINATIONS, {"beta": 0.0, "eta": 0.5}])
def test_gradient_matches_finite_differences(settings):
    wind, group = Wind(clip=None, **settings), random_group(0)
    fixed = (group.logp_old, group.logp_ref, group.win_rate)
    assert torch.autograd.gradcheck(
        lambda logp: wind.loss(Group(logp, *fixed)), group.logp.requires_grad_(), atol=1e-7, rtol=1e-6
    )


@pytest.mark.parametrize("settings", COMBINATIONS)
def test_each_prompt_stands_for_itself(settings):
    """So that the mean over micro-batches is the mean over the batch."""
    wind, both = Wind(clip=None, **settings), random_group(1, n=2)
    tensors = (both.logp, both.logp_old, both.logp_ref, both.win_rate)
    rows = [Group(*(tensor[i : i + 1] for tensor in tensors)) for i in (0, 1)]
    together = wind.loss(both)
    assert together.shape == (2, 4)
    torch.testing.assert_close(together, torch.cat([wind.loss(row) for row in rows]), rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"normalizer": "group", "baseline_shift": 0.3},
            "baseline_shift: 0.3 shifts the level of h, which normalizer 'group' cancels. "
            "Use normalizer 'mixed', or leave baseline_shift out.",
        ),
        ({"risk": "log"}, "Input should be 'squared', 'kl' or 'nce'"),
        ({"eps": 0.5}, "Input should be less than 0.5"),
        ({"eps": 0.0}, "Input should be greater than 0"),
        ({"mean_weight": 0.0}, "Input should be greater than 0"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValidationError) as refused:
        Wind(clip=None, **settings)
    assert message in str(refused.value)
