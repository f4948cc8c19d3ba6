"""Interrupted tasks: what is done again, and the end of the last, against series, simulations and tails."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.plan.interruptions import again, slowest


def test_what_is_done_again():
    """A task of an hour that is interrupted once an hour takes e - 1 hours on average; rare ones cost half a task."""
    assert again(1.0) == pytest.approx(math.e - 2)
    assert again(0.05) == pytest.approx((math.exp(0.05) - 1) / 0.05 - 1)
    assert again(1e-5) == pytest.approx(5.0000166667e-6)
    assert again(1e-320) >= again(0.0) == 0.0
    assert again(0.99999e-4) < again(1e-4)


@pytest.mark.parametrize(("hours", "rate"), [(1.0, 0.5), (1.0, 4.9), (0.1, 1.0), (3.0, 1e-3)])
def test_one_alone_takes_the_mean(hours, rate):
    assert slowest(hours, rate, 1) == pytest.approx((math.exp(rate * hours) - 1) / rate, rel=1e-3)


def test_the_last_of_twenty():
    rng = np.random.default_rng(7)

    def once():
        total = 0.0
        while (lasted := rng.exponential(2.0)) < 1:
            total += lasted
        return total + 1

    simulated = np.mean([max(once() for _ in range(20)) for _ in range(2000)])
    assert slowest(1.0, 0.5, 20) == pytest.approx(simulated, rel=0.03)


def test_the_last_of_more_than_memory_holds():
    """With one interruption in 1e10 hours, about one of 1e10 tasks is interrupted, after a time that is uniform.

    The largest of a Poisson number, of mean 1, of times uniform on (0, 1) has the mean 1/e.
    """
    assert slowest(1.0, 1e-10, 10**10) == pytest.approx(1 + 1 / math.e, rel=1e-3)
    assert slowest(1.0, 1e-9, 50) == pytest.approx(1.0)
    assert slowest(1.0, 5.5, 2) == math.inf


def test_the_tail_is_exponential():
    """S'(t) = -2 e^-2 S(t - 1), so S decays as exp(-x t), x = 2 e^-2 e^x: ten times as many take ln(10) / x longer."""
    x = 0.0
    for _ in range(200):
        x = 2 * math.exp(x - 2)
    longer = slowest(1.0, 2.0, 10**10) - slowest(1.0, 2.0, 10**9)
    assert longer == pytest.approx(math.log(10) / x, rel=1e-3)
