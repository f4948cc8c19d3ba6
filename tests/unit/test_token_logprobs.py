"""Log-probs of single tokens: a plain forward's, of the right responses, and kept in the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.data.records import Ragged
from components.data.rollouts import load_scored, save_scored
from components.policy.logprobs import response_token_logprobs, score_responses, score_tokens
from components.training.groups import Selection, _batch, group_of
from support.models.tiny import make_policy, make_scored


@pytest.fixture
def scored():
    policy = make_policy(dtype=torch.float64)
    data = make_scored(policy, n=5, k=4)
    tokens = score_tokens(policy, data.rollout.prompt_tokens, data.rollout.tokens)
    return policy, replace(data, token_logp_old=tokens, token_logp_ref=tokens - np.float32(0.25))


def test_token_logprobs_equal_a_plain_forward(scored):
    """One response at a time through the model's own logits."""
    policy, data = scored
    rollout = data.rollout
    for i in range(len(rollout.tokens)):
        prompt, response = rollout.prompt_tokens[i // 4], rollout.tokens[i]
        ids = torch.tensor([[*prompt, *response]])
        logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(response)), response.tolist()].detach().numpy()
        begin = rollout.tokens.offsets[i]
        np.testing.assert_allclose(data.token_logp_old[begin : begin + len(response)], expected, rtol=1e-6)
    sums = rollout.tokens.sums(data.token_logp_old).reshape(rollout.shape)
    np.testing.assert_allclose(sums, score_responses(policy, rollout.prompt_tokens, rollout.tokens), rtol=1e-6)


def test_groups_hold_the_tokens_of_their_responses(scored):
    policy, data = scored
    chosen = np.array([3, 0])
    selection = Selection(np.array([[2, 1]] * 5), np.full((5, 2), 0.5))
    group = group_of(policy, data, selection, chosen, mean_length=4.0)
    lengths = data.rollout.tokens.lengths.reshape(5, 4)[chosen][:, [2, 1]]
    assert group.tokens.mask.sum(-1).tolist() == lengths.tolist()
    torch.testing.assert_close(group.tokens.logp, group.tokens.logp_old, rtol=1e-6, atol=1e-6)
    apart = (group.tokens.logp_old - group.tokens.logp_ref) / 0.25
    torch.testing.assert_close(apart, group.tokens.mask, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(group.logp, group.tokens.logp.sum(-1))


def test_equal_responses_share_a_row(scored):
    """As `collate` lets them; each has its tokens all the same."""
    policy, data = scored
    rows = [data.rollout.tokens[i] for i in (0, 0, *range(2, 20))]
    twice = replace(data, rollout=replace(data.rollout, tokens=Ragged.of(rows)))
    grid = response_token_logprobs(policy, _batch(policy, twice, np.array([0]), np.array([[0, 1]])))
    assert grid.shape == (2, len(rows[0]))
    assert torch.equal(grid[0], grid[1])


def test_token_figures_survive_the_file(scored, tmp_path):
    _, data = scored
    found = load_scored(save_scored(data, tmp_path / "tokens.parquet"))
    np.testing.assert_array_equal(found.token_logp_old, data.token_logp_old)
    np.testing.assert_array_equal(found.token_logp_ref, data.token_logp_ref)
    without = replace(data, token_logp_old=None, token_logp_ref=None)
    assert load_scored(save_scored(without, tmp_path / "sums.parquet")).token_logp_old is None
