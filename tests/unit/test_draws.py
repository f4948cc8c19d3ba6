"""Draws of the transformers engine follow the distribution that they are to follow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from components.generation import Sampling
from components.generation._sampler import draw, uniforms_of
from support.sampling import run


def chi_square(counts, probabilities):
    """Pearson's statistic, and its 99.99 % quantile by Wilson and Hilferty's approximation."""
    expected = counts.sum() * probabilities
    degrees = len(counts) - 1
    quantile = degrees * (1 - 2 / (9 * degrees) + 3.719 * np.sqrt(2 / (9 * degrees))) ** 3
    return ((counts - expected) ** 2 / expected).sum(), quantile


def drawn_counts(weights, count, sampling):
    """How often each of the tokens comes in `count` draws."""
    uniforms = torch.from_numpy(np.random.default_rng(0).random(count))
    logits = torch.tensor(weights).log().expand(count, -1)
    return np.bincount(draw(logits, uniforms, sampling)[0].numpy(), minlength=len(weights))


# Of p = (0.05, 0.4, 0.2, 0.05, 0.3); the nucleus of 0.75 is 0.4 + 0.3 + 0.2, since 0.4 + 0.3 falls short of it.
@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.05, 0.4, 0.2, 0.05, 0.3]),
        (0.5, 1.0, np.square([0.05, 0.4, 0.2, 0.05, 0.3]) / 0.295),
        (1.0, 0.75, [0, 4 / 9, 2 / 9, 0, 3 / 9]),
        (1.0, 0.65, [0, 4 / 7, 0, 0, 3 / 7]),
        (1.0, 0.3, [0, 1, 0, 0, 0]),
        (0.5, 0.8, [0, 0.16 / 0.25, 0, 0, 0.09 / 0.25]),
    ],
)
def test_draws_follow_the_distribution(temperature, top_p, expected):
    expected = np.array(expected)
    counts = drawn_counts([0.05, 0.4, 0.2, 0.05, 0.3], 200_000, Sampling(1, temperature, top_p))
    assert counts[expected == 0].sum() == 0
    if (expected > 0).sum() > 1:
        statistic, quantile = chi_square(counts[expected > 0], expected[expected > 0])
        assert statistic < quantile


def test_draws_follow_a_wide_softmax():
    weights = np.random.default_rng(1).dirichlet(np.ones(50))
    statistic, quantile = chi_square(drawn_counts(weights, 200_000, Sampling(1)), weights)
    assert statistic < quantile


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_of_probability_zero_is_never_drawn(top_p, dtype):
    """With zeros first, last and between, at both ends of the uniforms and on every edge between tokens."""
    never = float("-inf")
    logits = torch.tensor([never, never, 0.0, never, 0.0, 0.0, never, never], dtype=dtype)
    thirds = np.arange(4) / 3
    uniforms = np.concatenate([[0, 1 - 2.0**-32], thirds[:3], np.nextafter(thirds[1:], 0), np.nextafter(thirds[:3], 1)])
    drawn, _ = draw(logits.expand(len(uniforms), -1), torch.from_numpy(uniforms), Sampling(1, 1.0, top_p))
    assert set(drawn.tolist()) <= {2, 4, 5}
    assert drawn[:2].tolist() == [2, 5]


def test_a_draw_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    logits, uniforms = torch.from_numpy(rng.normal(size=(64, 100)) * 3), torch.from_numpy(rng.random(64))
    for sampling in (Sampling(1), Sampling(1, 0.7, 0.8)):
        together, _ = draw(logits, uniforms, sampling)
        alone = [draw(logits[i : i + 1], uniforms[i : i + 1], sampling)[0].item() for i in range(64)]
        assert together.tolist() == alone


def test_uniforms_are_exact_fractions_below_one():
    uniforms = uniforms_of(np.array([3, 4], dtype=np.uint64), 50_000)
    assert uniforms.shape == (2, 50_000)
    assert uniforms.max() <= 1 - 2.0**-32
    np.testing.assert_array_equal(uniforms * 2.0**32 % 1, 0)
    counts = np.histogram(uniforms, bins=20, range=(0, 1))[0]
    statistic, quantile = chi_square(counts, np.full(20, 1 / 20))
    assert statistic < quantile
    np.testing.assert_array_equal(uniforms_of(np.array([4], dtype=np.uint64), 7)[0], uniforms[1, :7])


def test_whole_sequences_follow_the_model(make_model, make_policy):
    """20,000 responses of up to three of four tokens, against exact probabilities of all 40 sequences."""
    model, k, eos = make_model(vocab_size=4, pad_token_id=None, initializer_range=0.15), 20_000, 1
    with torch.no_grad():
        exact = {}
        for length in (1, 2, 3):
            for sequence in itertools.product(range(4), repeat=length):
                if eos in sequence[:-1] or (length < 3 and sequence[-1] != eos):
                    continue
                logp = model(input_ids=torch.tensor([[2, 3, *sequence]])).logits[0].double().log_softmax(-1)
                exact[sequence] = float(np.exp(sum(logp[1 + i, token].item() for i, token in enumerate(sequence))))
    assert len(exact) == 1 + 3 + 9 * 4
    assert sum(exact.values()) == pytest.approx(1, abs=1e-6)
    assert min(exact.values()) * k > 5  # else the statistic does not follow chi-square

    responses, finished = run(make_policy(model, eos_ids=(eos,)), [[2, 3]], k=k, limit=3)
    found = [tuple(row) for row in responses[0]]
    counts = np.array([found.count(sequence) for sequence in exact])
    assert counts.sum() == k
    statistic, quantile = chi_square(counts, np.array(list(exact.values())))
    assert statistic < quantile
    assert finished.mean() == np.mean([row[-1] == eos for row in found])
