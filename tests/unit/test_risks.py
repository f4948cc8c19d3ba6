"""The risks as functions of s and v: arithmetic by hand, smoothness where the logarithms end, and their minimiser."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from components.algorithms._risks import kl, nce, squared
from support.tensors import tensor

EPS = 0.05
SCORES = {"squared": squared, "kl": partial(kl, eps=EPS), "nce": partial(nce, eps=EPS)}
# w in the gradient (s - v)·w(s), worked out on paper
WEIGHTS = {"squared": lambda s: 2.0, "kl": lambda s: 1 / (s * (1 - s)), "nce": lambda s: 2 / (s * (1 + 2 * s))}
ENDS = [("kl", EPS), ("kl", 1 - EPS), ("nce", EPS)]


def gradient(score, s, v):
    s = s.clone().requires_grad_()
    return torch.autograd.grad(score(s, v).sum(), s)[0]


@pytest.mark.parametrize(
    ("s", "v", "expected"),
    [
        (0.5, 0.75, math.log(2)),  # both logarithms are -log 2, their weights sum to 1
        (0.25, 0.5, 0.5 * math.log(4) + 0.5 * math.log(4 / 3)),
        (0.75, 1.0, math.log(4 / 3)),
        # From s = 1/4 with w = 1 / (1/4·3/4) = 16/3: 8/3·[(0 - 1)² - (1/4 - 1)²] = 8/3·7/16
        (0.0, 1.0, math.log(4) + 7 / 6),
        # From s = 3/4, with the same w: 8/3·[(1 - 0)² - (3/4 - 0)²]
        (1.0, 0.0, math.log(4) + 7 / 6),
        # s = 5/4 and s = 3/4 are equally far from v = 1
        (1.25, 1.0, math.log(4 / 3)),
        # 8/3·[(2 - 1/2)² - (3/4 - 1/2)²] = 8/3·35/16
        (2.0, 0.5, 0.5 * math.log(4 / 3) + 0.5 * math.log(4) + 35 / 6),
    ],
)
def test_kl_by_hand(s, v, expected):
    """eps = 1/4: logarithms between 1/4 and 3/4, parabolas beyond."""
    assert kl(tensor(s), tensor(v), eps=0.25).item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    ("s", "v", "expected"),
    [
        (0.5, 0.5, 2 * math.log(2)),  # 2s/(1+2s) = 1/2: -log(1/2) + log 2
        (1.0, 0.75, -1.5 * math.log(2 / 3) + math.log(3)),
        (3.0, 0.0, math.log(7)),  # a loser stands among the noise only
        # From s = 1/2 with w = 2 / (1/2·2) = 2: (0 - 0)² - (1/2 - 0)²
        (0.0, 0.0, math.log(2) - 1 / 4),
        # (-1/2 - 1/2)² - (1/2 - 1/2)²
        (-0.5, 0.5, 2 * math.log(2) + 1),
    ],
)
def test_nce_by_hand(s, v, expected):
    """eps = 1/2: logarithms above, a parabola below."""
    assert nce(tensor(s), tensor(v), eps=0.5).item() == pytest.approx(expected, abs=1e-14)


def test_nce_is_the_log_loss_of_telling_winners_from_noise():
    """A sample is a winner with odds 2s: the probability of that is 2s/(1+2s), of noise 1/(1+2s)."""
    s, v = torch.linspace(0.1, 2, 20, dtype=torch.float64), torch.linspace(0, 1, 20, dtype=torch.float64)
    logit = (2 * s).log()
    expected = torch.nn.functional.binary_cross_entropy_with_logits
    winners = expected(logit, torch.ones_like(s), reduction="none")
    noise = expected(logit, torch.zeros_like(s), reduction="none")
    torch.testing.assert_close(nce(s, v, eps=EPS), 2 * v * winners + noise, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SCORES)
def test_gradient_is_the_residual_times_the_weight(name):
    s = torch.linspace(EPS, 1 - EPS, 41, dtype=torch.float64)
    for v in (0.0, 1 / 3, 1.0):
        expected = (s - v) * WEIGHTS[name](s)
        torch.testing.assert_close(gradient(SCORES[name], s, tensor(v)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "end"), ENDS)
def test_beyond_the_end_the_weight_is_frozen(name, end):
    outward = torch.linspace(0, 30, 61, dtype=torch.float64)
    s = end + outward if end > 0.5 else end - outward
    for v in (0.0, 1 / 3, 1.0):
        expected = (s - v) * WEIGHTS[name](end)
        torch.testing.assert_close(gradient(SCORES[name], s, tensor(v)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "end"), ENDS)
@pytest.mark.parametrize("v", [0.0, 0.03, 0.5, 1.0])
def test_value_and_gradient_are_continuous_at_the_end(name, end, v):
    """Across 2·10⁻⁸, values change by the gradient of at most 40 and gradients by the curvature of at most 2/eps²."""
    score, v = SCORES[name], tensor(v)
    inner, outer = tensor([end - 1e-8, end + 1e-8])
    assert abs(score(inner, v) - score(outer, v)) < 40 * 2.1e-8
    assert abs(gradient(score, inner, v) - gradient(score, outer, v)) < 2 * EPS**-2 * 2.1e-8


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_never_dies_nor_bursts(name, dtype):
    s = torch.tensor([-1e4, -50, -1, -0.01, 0, EPS, 1 - EPS, 1, 1.01, 2, 50, 1e4], dtype=dtype)
    for v in (0.0, 0.5, 1.0):
        g = gradient(SCORES[name], s, torch.tensor(v, dtype=dtype))
        assert SCORES[name](s, torch.tensor(v, dtype=dtype)).isfinite().all()
        assert (g.sign() == (s - v).sign()).all()
        assert (g[s != v].abs() > 1e-5).all()
        assert (g.abs() <= (s - v).abs() * 40).all()  # w is at most 1/(eps·(1 - eps)) or 2/(eps·(1 + 2·eps)) < 40


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("p", [0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
def test_population_minimiser_is_the_mean_of_v(name, p):
    """v is 1 with probability p and 0 otherwise: the mean gradient is below zero for s < p and above it for s > p."""
    s = torch.cat([torch.linspace(-3, p, 301), torch.linspace(p, 4, 401)]).double()
    lose, win = (gradient(SCORES[name], s, tensor(v)) for v in (0.0, 1.0))
    mean = p * win + (1 - p) * lose
    below, above = s < p - 1e-3, s > p + 1e-3
    assert (mean[below] < 0).all()
    assert (mean[above] > 0).all()
    at = [gradient(SCORES[name], tensor(p), tensor(v)) for v in (0.0, 1.0)]
    assert abs((1 - p) * at[0] + p * at[1]) < 1e-12
