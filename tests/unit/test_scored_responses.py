"""Responses that are scored: equal ones once, in parts, in the order they came in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.data.records import Ragged
from components.policy import batches
from components.policy.batches import by_length, collate, left_padded
from components.policy.logprobs import (
    score_responses,
)
from support.logprobs import CPU, PAD, gradients, groups, ours, plain, ragged


@pytest.fixture(params=[1, 256], ids=["many-parts", "one-part"])
def overhead(request, monkeypatch):
    """Tokens that another forward pass may cost: few, so that each length has its own, or many."""
    monkeypatch.setattr(batches, "OVERHEAD", request.param)


@pytest.mark.usefixtures("overhead")
def test_equal_responses_have_equal_log_probs_and_add_up_in_the_gradient(model, make_policy):
    prompts, responses, repeated = groups()
    responses[1], responses[5], responses[8] = responses[0], responses[3], responses[7]
    model.double()
    logp = ours(make_policy(model), prompts, responses)
    exact = plain(model, repeated, responses)
    torch.testing.assert_close(logp.detach(), exact.detach(), rtol=0, atol=1e-10)
    assert logp[0] == logp[1]
    weights = torch.linspace(-1, 2, len(responses), dtype=torch.float64)
    expected = gradients(model, exact @ weights)
    torch.testing.assert_close(gradients(model, logp @ weights), expected, rtol=1e-5, atol=1e-5)  # norms round to fp32


def test_prompts_of_one_token_share_nothing():
    assert collate([[7], [8]], [[10], [11], [12], [13]], PAD, CPU).prefix is None


def test_left_padded_has_a_mask_only_where_it_pads():
    assert left_padded([[7, 8], [5, 6]], PAD, CPU).mask is None
    assert left_padded([[7, 8], [5]], PAD, CPU).mask.tolist() == [[1, 1], [0, 1]]


def test_by_length_by_hand():
    """By length 9, 4, 3, 2, 1; their sizes 9, 5, 3, 7, 1 in sums of at most eight."""
    found = by_length(np.array([3, 9, 1, 4, 2]), np.array([3, 9, 1, 5, 7]), tokens_per_batch=8)
    assert [b.tolist() for b in found] == [[1], [3, 0], [4, 2]]


@pytest.mark.parametrize("budget", [1, 7, 40, 10_000])
def test_by_length_covers_each_index_once_within_the_budget(budget):
    lengths, sizes = np.random.default_rng(0).integers(1, 30, (2, 200))
    found = list(by_length(lengths, sizes, budget))
    assert sorted(np.concatenate(found)) == list(range(200))
    for batch, following in zip(found, [*found[1:], None], strict=True):
        assert len(batch) == 1 or sizes[batch].sum() <= budget
        assert following is None or sizes[batch].sum() + sizes[following[0]] > budget
    longest = [lengths[batch].max() for batch in found]
    assert longest == sorted(longest, reverse=True)


class Reads:
    """Counts the tokens that a policy's model reads."""

    def __init__(self, policy):
        self.tokens = 0
        policy.model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        self.tokens += kwargs["input_ids"].numel()


def test_score_responses_reads_a_long_prompt_once(make_policy):
    """Two prompts of 20 tokens, 4 responses of 5 to each: 2·19 + 8·5 tokens, not 8·24."""
    rng = np.random.default_rng(0)
    policy = make_policy()
    reads = Reads(policy)
    score_responses(policy, Ragged.of(ragged(rng, [20, 20])), Ragged.of(ragged(rng, [5] * 8)))
    assert reads.tokens == 2 * 19 + 8 * 5


@pytest.mark.parametrize(("overhead", "tokens"), [(1, 2 * 40 + 6 * 1), (1000, 8 * 40)])
def test_score_responses_reads_ragged_responses_in_parts(make_policy, monkeypatch, overhead, tokens):
    """One response of forty tokens to each of two prompts and three of one token: the latter are not padded to forty.

    Each row begins with a token of its prompt and lacks its own last one; of the prompts one token is the prefix.
    """
    monkeypatch.setattr(batches, "OVERHEAD", overhead)
    rng = np.random.default_rng(0)
    policy = make_policy()
    reads = Reads(policy)
    lengths = [40, 1, 1, 1, 1, 1, 40, 1]
    score_responses(policy, Ragged.of(ragged(rng, [2, 2])), Ragged.of(ragged(rng, lengths)))
    assert reads.tokens == 2 * 1 + tokens


@pytest.mark.usefixtures("overhead")
@pytest.mark.parametrize("tokens_per_batch", [1, 23, 60, 8192])
def test_score_responses_keeps_the_order(make_policy, tokens_per_batch):
    rng = np.random.default_rng(0)
    prompts, responses = ragged(rng, [5, 1, 9]), ragged(rng, [4, 8, 1, 0, 2, 6, 7, 3, 5, 1, 1, 2])
    policy, calls = make_policy(), []
    scores = score_responses(
        policy,
        Ragged.of(prompts),
        Ragged.of(responses),
        tokens_per_batch=tokens_per_batch,
        progress=lambda done, total: calls.append((done, total)),
    )
    with torch.no_grad():
        expected = plain(policy.model, [prompts[i // 4] for i in range(12)], responses).reshape(3, 4)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    assert calls[-1] == (12, 12)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
