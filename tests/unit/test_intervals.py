"""Intervals: quantiles of the tables, and how often an interval of a win rate holds the true one.

Coverage in per cent where each prompt is won or lost (exact), the hardest case, as values lie furthest apart:

| prompts | rate 0.5 | 0.7 | 0.9 | 0.95 | 0.99 | 0.995 |
|---|---|---|---|---|---|---|
| 2 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |
| 5 | 100.0 | 99.8 | 100.0 | 100.0 | 100.0 | 100.0 |
| 8 | 99.2 | 98.9 | 100.0 | 100.0 | 100.0 | 100.0 |
| 20 | 95.9 | 98.7 | 99.8 | 100.0 | 100.0 | 100.0 |
| 50 | 96.7 | 96.9 | 98.5 | 99.7 | 100.0 | 100.0 |
| 200 | 96.0 | 95.5 | 96.7 | 96.1 | 99.6 | 99.9 |
| 512 | 95.3 | 95.2 | 95.3 | 95.6 | 98.8 | 99.5 |
| 1000 | 95.4 | 95.5 | 95.5 | 96.4 | 95.7 | 98.8 |
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from components.evaluation.intervals import interval, rate_interval, t_quantile

RATES = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995]
PROMPTS = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512, 1000]
TRIALS = 1000


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (5, 2.57058), (10, 2.22814), (30, 2.04227), (200, 1.9719)],
)
def test_t_quantiles_are_those_of_the_tables(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, rel=1e-5)


def test_t_quantile_of_another_probability():
    assert t_quantile(1, 0.5) == pytest.approx(1)  # Cauchy: arctan(1) = pi/4
    assert t_quantile(2, 0.5) == pytest.approx(math.sqrt(2 / 3))  # t/√(2 + t²) = 1/2
    assert t_quantile(1, 1 - 1e-5) == pytest.approx(1 / math.tan(math.pi / 2 * 1e-5), rel=1e-6)
    assert t_quantile(4, 0.99) == pytest.approx(4.60409, rel=1e-5)


def test_interval_of_another_probability_by_hand():
    """0, 1, 2: mean 1, standard deviation 1, t(2) for 0.99 is 9.92484."""
    assert interval(np.array([0.0, 1.0, 2.0]), 0.99) == pytest.approx((1, 1 - 9.92484 / 3**0.5, 1 + 9.92484 / 3**0.5))


def test_rate_interval_by_hand():
    """0.25, 0.5, 0.75, 1 with 0 and 1: mean 7/12, squared deviations from it sum to 1/16 + 1/4 + 9/16 + 2 - 6·49/144 =
    0.833333, so the standard error is sqrt(0.833333/5/6) = 1/6. t(5) = 2.570582, half a value 1/12."""
    half = 2.570582 / 6 + 1 / 12
    assert rate_interval(np.array([0.25, 0.5, 0.75, 1.0])) == pytest.approx((7 / 12 - half, 1.0), abs=1e-6)
    assert 7 / 12 + half > 1


@pytest.mark.parametrize(
    ("value", "low", "high"), [(1.0, 0.623784, 1.0), (0.0, 0.0, 0.376216), (0.5, 0.281389, 0.718611)]
)
def test_prompts_that_all_agree_are_not_certain(value, low, high):
    """Eight prompts. All won: 0.9 ± t(9)·√(0.1/10) and 1/20 more, t(9) = 2.262157: 0.9 - 0.226216 - 0.05.

    All tied: the variance is 2·0.25/9, so 0.5 ± 2.262157·√(0.055556/10) and 1/20 more: 0.5 ± (0.168611 + 0.05).
    """
    assert rate_interval(np.full(8, value)) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("n", PROMPTS)
def test_the_interval_holds_the_rate_where_prompts_are_won_or_lost(n):
    """Exactly, by the binomial distribution of the number of prompts won."""
    bounds = np.array([rate_interval(np.arange(n) < won) for won in range(n + 1)])
    log_choose = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])
    won = np.arange(n + 1)
    for rate in RATES:
        for p in (rate, 1 - rate):
            probability = np.exp(log_choose + won * math.log(p) + (n - won) * math.log(1 - p))
            held = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
            assert probability[held].sum() >= 0.95, p


def with_verifier(rng, rate, n, m):
    """(trials, n): m responses each to n prompts, right or wrong; right beats wrong, the rest are ties.

    Ours are right with probability a, theirs with b: the win rate is 1/2 + (a - b)/2.
    """
    ours, theirs = (rng.binomial(m, p, size=n) / m for p in (rate, 1 - rate))
    return 0.5 + (ours - theirs) / 2


def with_rewards(rng, rate, n, m):
    """Scores N(d + a, 1) against N(0, 1), with an advantage a ~ N(0, 1) that a prompt's m responses share.

    The win rate is Phi(d / √3).
    """
    ours = rng.normal(math.sqrt(3) * NormalDist().inv_cdf(rate), 1, (*n, 1)) + rng.normal(size=(*n, m))
    return (ours[..., None] > rng.normal(size=(*n, 1, m))).mean((2, 3))


@pytest.mark.thorough(but=["200"])
@pytest.mark.parametrize("values_of", [with_verifier, with_rewards])
@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("n", [2, 8, 32, 200])
def test_the_interval_holds_the_rate_of_several_responses_and_ties(values_of, m, n):
    """A coverage of 0.95 shows as 0.95 to within three standard errors."""
    for place, rate in enumerate([0.5, 0.7, 0.9, 0.95, 0.99, 0.995]):
        values = values_of(np.random.default_rng([n, m, place]), rate, (TRIALS, n), m)
        bounds = np.array([rate_interval(row) for row in values])
        held = (bounds[:, 0] <= rate) & (rate <= bounds[:, 1])
        assert held.mean() >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS), rate


@pytest.mark.thorough(but=["8"])
@pytest.mark.parametrize("n", [3, 8, 50, 400])
def test_the_interval_holds_the_mean_of_any_mixture_of_wins_and_ties(n):
    """Values 0, 1/4, 1/2, 3/4 and 1 with random chances, some of them with one value that is rare."""
    rng = np.random.default_rng(n)
    levels = np.linspace(0, 1, 5)
    rare = [np.array([0, 0, 1 - e, 0, e]) for e in (0.01, 0.05)] + [np.array([e, 0, 0, 0, 1 - e]) for e in (0.01, 0.05)]
    for chances in [*rare, *rng.dirichlet(np.full(5, 0.3), size=8)]:
        rows = rng.choice(levels, p=chances, size=(TRIALS, n))
        bounds = np.array([rate_interval(row) for row in rows])
        held = (bounds[:, 0] <= chances @ levels) & (chances @ levels <= bounds[:, 1])
        assert held.mean() >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS), chances


def test_one_value_says_nothing():
    assert rate_interval(np.array([0.9])) == (0.0, 1.0)
    assert all(math.isnan(bound) for bound in interval(np.array([0.9]))[1:])
