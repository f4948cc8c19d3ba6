"""The transformers engine: the tokens it draws, their distribution, and what they must not depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from components.data.seeds import derive_seed
from components.generation import Sampling, _sampler
from components.generation._sampler import draw, uniforms_of
from components.generation.transformers import TransformersEngine
from components.policy.logprobs import collate, response_logprobs

EOS, OTHER_EOS = 1, 5  # of the policies in conftest.py, whose words are 6 … 59
MIXED = [[7, 8, 9], [10], [11, 12, 13, 14, 15, 16], [17, 18, 19], [20, 21, 22, 23, 24]]


def seeds_of(prompts, k, *, iteration=1):
    """(n, K), from each prompt's tokens, so that a prompt has the same seeds in every batch."""
    rows = [[derive_seed(0, iteration, str(list(p)), j) for j in range(k)] for p in prompts]
    return np.array(rows, dtype=np.uint64)


def run(policy, prompts, *, k=4, limit=12, batch_size=512, iteration=1, temperature=1.0, top_p=1.0, progress=None):
    """Responses as nested lists, (n, K), and `finished`."""
    samples = TransformersEngine(batch_size=batch_size).sample(
        policy,
        prompts,
        seeds_of(prompts, k, iteration=iteration),
        Sampling(limit, temperature, top_p),
        **({} if progress is None else {"progress": progress}),
    )
    rows = [samples.tokens[i].tolist() for i in range(len(samples.tokens))]
    return [rows[i : i + k] for i in range(0, len(rows), k)], samples.finished


def redrawn(model, prompts, responses, *, k, limit, temperature=1.0):
    """What each token should have been: a forward of the whole row without cache, and the row's own uniforms."""
    expected = []
    for prompt, group, seeds in zip(prompts, responses, seeds_of(prompts, k), strict=True):
        rows = []
        for response, seed in zip(group, seeds, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
            weights = np.exp(logits.double().numpy() / temperature)
            uniforms = (np.random.Philox(key=int(seed)).random_raw(limit) >> np.uint64(32)) / 2.0**32
            cumulative = weights.cumsum(1) / weights.sum(1, keepdims=True)
            rows.append([int((c <= u).sum()) for c, u in zip(cumulative, uniforms, strict=False)])
        expected.append(rows)
    return expected


# Against forwards without a cache


def test_agrees_with_forwards_without_a_cache(model, make_policy):
    """Left padding, cache growth, sliding windows of 4, rows that leave the batch: all invisible in the tokens."""
    responses, _ = run(make_policy(model), MIXED, k=6, limit=40)
    lengths = [len(row) for group in responses for row in group]
    assert min(lengths) < 8
    assert max(lengths) == 40  # more than a window, more than the cache's first room
    assert responses == redrawn(model, MIXED, responses, k=6, limit=40)


def test_temperature_divides_logits(make_policy):
    policy = make_policy()
    responses, _ = run(policy, MIXED, temperature=0.4)
    assert responses != run(policy, MIXED)[0]
    assert responses == redrawn(policy.model, MIXED, responses, k=4, limit=12, temperature=0.4)


# What tokens must not depend on


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_tokens_do_not_depend_on_the_batch(make_policy, name):
    policy = make_policy(name)
    together, finished = run(policy, MIXED)
    for batch_size in (1, 4, 8, 15):
        again, again_finished = run(policy, MIXED, batch_size=batch_size)
        assert again == together
        np.testing.assert_array_equal(again_finished, finished)
    backwards, _ = run(policy, MIXED[::-1])
    assert backwards[::-1] == together
    alone = [run(policy, [prompt])[0][0] for prompt in MIXED]  # unpadded, and another shard's company
    assert alone == together


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_tokens_do_not_depend_on_when_rows_leave(make_policy, monkeypatch, share):
    expected = run(make_policy(), MIXED, k=8)
    monkeypatch.setattr(_sampler, "COMPACT", share)
    found = run(make_policy(), MIXED, k=8)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_tokens_differ_between_prompts_responses_and_iterations(make_policy):
    policy = make_policy(eos_ids=())
    first, _ = run(policy, [[7, 8, 9], [9, 8, 7]], k=8)
    second, _ = run(policy, [[7, 8, 9], [9, 8, 7]], k=8, iteration=2)
    rows = [tuple(row) for group in (*first, *second) for row in group]
    assert len(set(rows)) == len(rows) == 32


def test_more_responses_leave_the_first_ones_alone(make_policy):
    policy = make_policy()
    few, many = run(policy, MIXED, k=2)[0], run(policy, MIXED, k=5)[0]
    assert [group[:2] for group in many] == few


# Where a response ends


def test_ends_with_the_first_of_several_eos(make_policy):
    responses, finished = run(make_policy(), MIXED, k=16, limit=20)
    rows = [row for group in responses for row in group]
    for row, ended in zip(rows, finished.reshape(-1), strict=True):
        assert not {EOS, OTHER_EOS} & set(row[:-1])
        assert ended == (row[-1] in (EOS, OTHER_EOS))
        assert ended or len(row) == 20
    assert {row[-1] for row in rows} >= {EOS, OTHER_EOS}
    assert 0 < finished.mean() < 1


def test_cuts_off_at_the_limit(make_policy):
    responses, finished = run(make_policy(eos_ids=(59 + 1,)), MIXED, limit=5)
    assert {len(row) for group in responses for row in group} == {5}
    assert not finished.any()


def test_a_shorter_limit_gives_prefixes(make_policy):
    policy = make_policy()
    long, short = run(policy, MIXED, limit=20)[0], run(policy, MIXED, limit=1)[0]
    assert short == [[row[:1] for row in group] for group in long]


def test_progress_counts_up_to_all_responses(make_policy):
    calls = []
    run(make_policy(), MIXED, k=3, batch_size=6, progress=lambda done, total: calls.append((done, total)))
    done = [d for d, _ in calls]
    assert done == sorted(done)
    assert calls[-1] == (15, 15)
    assert {total for _, total in calls} == {15}


def test_bf16_repeats_itself_and_leaves_training_possible(make_policy):
    """The weights that autocast casts and keeps while sampling carry no gradient; none may outlive the sampling."""
    policy = make_policy(precision="bf16")
    responses, _ = run(policy, MIXED)
    assert run(policy, MIXED)[0] == responses
    assert responses != run(make_policy(), MIXED)[0]
    batch = collate(MIXED, [group[0] for group in responses], policy.pad_id, policy.device)
    response_logprobs(policy, batch).sum().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in policy.model.parameters())


def test_weights_that_are_not_finite_are_an_error(make_model, make_policy):
    policy = make_policy(make_model())
    policy.model.base_model.norm.weight.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        run(policy, MIXED)


# The distribution


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
    return np.bincount(draw(logits, uniforms, sampling).numpy(), minlength=len(weights))


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
    drawn = draw(logits.expand(len(uniforms), -1), torch.from_numpy(uniforms), Sampling(1, 1.0, top_p))
    assert set(drawn.tolist()) <= {2, 4, 5}
    assert drawn[:2].tolist() == [2, 5]


def test_a_draw_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    logits, uniforms = torch.from_numpy(rng.normal(size=(64, 100)) * 3), torch.from_numpy(rng.random(64))
    for sampling in (Sampling(1), Sampling(1, 0.7, 0.8)):
        together = draw(logits, uniforms, sampling)
        alone = [draw(logits[i : i + 1], uniforms[i : i + 1], sampling).item() for i in range(64)]
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
