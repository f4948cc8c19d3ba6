"""Win rate at equal length: cases that can be told by hand, an independent fit, and how often its interval holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from components.evaluation import metrics
from components.evaluation.length_control import win_rate

OURS, THEIRS = slice(0, 2), slice(2, 4)


def wins(scores, temperature=None):
    """(n, K, K): the higher score wins, or Bradley and Terry's rate."""
    differences = scores[:, :, None] - scores[:, None, :]
    return (np.sign(differences) + 1) / 2 if temperature is None else expit(differences / temperature)


def lengths(rng, n, more=0):
    """Two responses each of the policy, which are so much longer, and of the reference."""
    found = rng.integers(10, 30, (n, 4)).astype(float)
    found[:, OURS] += more
    return found


def both(preference, length):
    return win_rate(preference, length, OURS, THEIRS), metrics.win_rate(preference, OURS, THEIRS)


@pytest.mark.parametrize("more", [3, 10])
def test_where_length_explains_everything_nobody_wins(more):
    """The longer response wins, whoever gave it."""
    length = lengths(np.random.default_rng(0), 400, more)
    controlled, plain = both(wins(length), length)
    assert plain.low > 0.57
    assert controlled.mean == pytest.approx(0.5, abs=1e-3)
    assert controlled.high < plain.low


def test_a_judge_of_length_is_seen_through_where_all_responses_of_the_policy_are_the_longer_ones():
    """By pairs of the policy's own and the reference's own. No verdict is one at equal length: the interval says so."""
    length = lengths(np.random.default_rng(0), 400, 40)
    controlled, plain = both(wins(length), length)
    assert (plain.mean, plain.low > 0.98) == (1.0, True)
    assert controlled.mean == pytest.approx(0.5, abs=1e-3)
    assert controlled.low < 0.1
    assert 0.9 < controlled.high < plain.low


def test_without_pairs_of_its_own_a_longer_policy_is_not_said_to_win_by_anything_else():
    length = np.tile([30.0, 10.0], (50, 1))
    controlled = win_rate(np.tile([[0.5, 1.0], [0.0, 0.5]], (50, 1, 1)), length, slice(0, 1), slice(1, 2))
    assert controlled.mean == pytest.approx(0.5, abs=0.02)
    assert controlled.high - controlled.low > 0.8


def test_where_length_explains_nothing_the_rate_is_the_plain_one():
    """The same verdicts stand once more with the lengths swapped: phi is 0, and sigmoid(theta) the mean."""
    rng = np.random.default_rng(1)
    quality, length = rng.normal(size=(300, 4)), lengths(rng, 300)
    quality[:, OURS] += 0.8
    swapped = length.sum(1, keepdims=True) - length  # differences of all pairs with the other sign
    controlled, plain = both(wins(np.concatenate([quality, quality])), np.concatenate([length, swapped]))
    assert controlled.mean == pytest.approx(plain.mean, abs=1e-4)
    assert (controlled.low, controlled.high) == pytest.approx((plain.low, plain.high), abs=0.005)


def test_equal_lengths_leave_the_rate_as_it_is():
    quality = np.random.default_rng(2).normal([0.7, 0.7, 0, 0], size=(200, 4))
    controlled, plain = both(wins(quality), np.full((200, 4), 12.0))
    assert controlled.mean == pytest.approx(plain.mean, abs=1e-4)


def test_a_better_policy_that_is_also_longer_keeps_its_rate():
    rng = np.random.default_rng(3)
    quality, length = rng.normal([0.8, 0.8, 0, 0], size=(400, 4)), lengths(rng, 400, 15)
    controlled, plain = both(wins(quality), length)
    assert plain.mean > 0.65
    assert controlled.mean == pytest.approx(plain.mean, abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_against_an_independent_fit(seed):
    """scipy minimises minus the log-likelihood, written out pair by pair, of verdicts made with theta 0.9, phi 0.8."""
    rng = np.random.default_rng(seed)
    length = lengths(rng, 150, 6)
    pairs = [(0, 2), (0, 3), (1, 2), (1, 3), (0, 1), (2, 3)]
    spread = math.sqrt(np.mean([(length[:, a] - length[:, b]) ** 2 for a, b in pairs[:4]]))
    preference, terms = np.full((150, 4, 4), 0.5), []
    for a, b in pairs:
        x, m = np.tanh((length[:, a] - length[:, b]) / spread), float((a < 2) != (b < 2))
        y = (rng.random(150) < expit(0.9 * m + 0.8 * x)).astype(float)
        preference[:, a, b], preference[:, b, a] = y, 1 - y
        terms.append((m, x, y))

    def loss(at):
        logits = [(at[0] * m + at[1] * x, y) for m, x, y in terms]
        return sum(np.logaddexp(0, logit).sum() - (y * logit).sum() for logit, y in logits)

    theta = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10}).x[0]
    assert win_rate(preference, length, OURS, THEIRS).mean == pytest.approx(expit(theta), abs=2e-5)


@pytest.mark.parametrize(("n", "trials"), [(10, 300), (60, 300)])
def test_the_interval_holds_the_true_rate(n, trials):
    """Verdicts with theta 1 and phi 0.7, whose responses to one prompt share a good or a bad day of the policy.

    Theta is N(1, 0.8²) over prompts; the rate at length difference 0 is the mean of its sigmoid, by quadrature.
    """
    rng, hits = np.random.default_rng(4), 0
    z = np.linspace(-8, 8, 20_001)
    truth = float((expit(1 + 0.8 * z) * np.exp(-(z**2) / 2)).sum() / np.exp(-(z**2) / 2).sum())
    for _ in range(trials):
        length = lengths(rng, n, 5)
        spread = math.sqrt(((length[:, :2, None] - length[:, None, 2:]) ** 2).mean())
        day = 1 + 0.8 * rng.normal(size=(n, 1, 1))
        policy = np.array([1, 1, 0, 0])
        logit = day * (policy[:, None] - policy) + 0.7 * np.tanh((length[:, :, None] - length[:, None, :]) / spread)
        won = np.triu(rng.random((n, 4, 4)) < expit(logit), 1).astype(float)
        preference = won + np.tril(1 - won.transpose(0, 2, 1), -1) + np.eye(4) / 2
        found = win_rate(preference, length, OURS, THEIRS)
        hits += found.low <= truth <= found.high
    assert hits / trials >= 0.94


def test_one_prompt_and_verdicts_that_all_agree_are_not_certain():
    length = np.full((8, 2), 5.0)
    one, other = slice(0, 1), slice(1, 2)
    won = np.tile([[0.5, 1.0], [0.0, 0.5]], (8, 1, 1))
    found = win_rate(won, length, one, other)
    assert found.mean == pytest.approx(1, abs=2e-3)
    assert 0.3 < found.low < 0.7
    assert found.high > 0.98
    single = win_rate(won[:1], length[:1], one, other)
    assert (single.low, single.high) == (0.0, 1.0)
