"""What training says of a rate that is too high or too low."""

from __future__ import annotations

from functools import partial

import pytest

from components.algorithms.dpo import Dpo
from components.algorithms.ipo import Ipo
from components.algorithms.sppo import Sppo
from components.algorithms.wind import Wind
from components.training.learning import warnings
from support.models.tiny import make_policy
from support.monitor import begin, fit, one_word, settings

pytestmark = pytest.mark.thorough


def warned(algorithm=None, *, words="ab", **changes):
    policy, config = make_policy(), settings(**changes)
    data, algorithm = one_word(policy, n=16, words=words), algorithm or Wind(beta=0.02, eta=10.0, clip=None)
    state = begin(policy, config)
    return warnings(fit(state, data, algorithm, config).seen(state), algorithm, config)


@pytest.mark.parametrize(
    "algorithm", [Wind(beta=0.02, eta=10.0, clip=None), Sppo(), Dpo(), Ipo(), Wind(clip=None, normalizer="group")]
)
def test_training_at_a_fitting_rate_is_silent(algorithm):
    assert warned(algorithm, epochs=4, learning_rate=3e-3) == ""


@pytest.mark.parametrize("algorithm", [Wind(clip=None, eta=2.0), Sppo(eta=2.0), Ipo(beta=2.0)])
def test_a_rate_that_is_too_high_lets_the_risk_rise(algorithm):
    text = warned(algorithm, epochs=2, learning_rate=1.0)
    assert "The risk rose from " in text
    assert "over the iteration: training overshot. Lower training.learning_rate (1)" in text
    assert "lower training.epochs (2)" in text
    assert ("or raise algorithm.eta (2)" in text) == hasattr(algorithm, "eta")


@pytest.mark.parametrize("algorithm", [partial(Wind, clip=None), Sppo])
def test_a_second_pass_that_overshoots_and_its_remedies(algorithm):
    """A step of half the rate and one of the whole: the risk falls from 1/4, and then rises again."""
    steps = {"epochs": 2, "learning_rate": 0.01, "warmup_ratio": 0.95, "batch_size": 16}
    assert warned(algorithm(eta=2.0), **steps).startswith("The risk rose from 0.0")
    assert "in pass 2 of 2" in warned(algorithm(eta=2.0), **steps)
    assert warned(algorithm(eta=2.0), **steps | {"learning_rate": 0.003}) == ""
    assert warned(algorithm(eta=10.0), **steps) == ""


@pytest.mark.parametrize("algorithm", [Wind(beta=0.02, eta=10.0, clip=None), Sppo(), Ipo()])
def test_a_tiny_rate_hardly_moves(algorithm):
    text = warned(algorithm, learning_rate=1e-6)
    assert "training hardly moved the policy. Raise training.learning_rate (1e-06)" in text
    assert ("or lower algorithm.eta (10)" in text) == hasattr(algorithm, "eta")


def test_a_rate_without_measure_runs_away():
    """DPO's risk falls as long as the winner stays above the loser; both lose half of each token's probability."""
    text = warned(Dpo(beta=0.01), words="abcd", epochs=8, learning_rate=0.1)
    assert "nats per token" in text
    assert "or raise algorithm.beta (0.01)" in text
