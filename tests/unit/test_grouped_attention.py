"""Attention in groups of heads against attention written out, and against the same model without groups."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from components.config.sections import PolicyConfig
from components.generation._attention import GROUPED, attend, grouped_heads
from components.policy import model as policies
from support.models.families import FAMILIES, save_policy


def written_out(query, key, value, mask, scale):
    """Each head by itself: softmax(q·k·scale) v over the positions that the mask shows."""
    heads = query.shape[1]
    output = torch.empty(*query.shape[:3], value.shape[-1], dtype=query.dtype)
    for b in range(len(query)):
        for h in range(heads):
            shared = h // (heads // key.shape[1])
            scores = query[b, h] @ key[b, shared].T * scale
            if mask is not None:
                scores = scores.masked_fill(~mask[b, 0], -torch.inf)
            output[b, h] = scores.softmax(-1) @ value[b, shared]
    return output.transpose(1, 2)


@pytest.mark.parametrize("shared", [1, 2, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_by_hand(shared, masked):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, heads, length, 4, generator=generator, dtype=torch.float64)
        for heads, length in ((6, 1), (shared, 5), (shared, 5))
    )
    mask = torch.ones(3, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., :2] = False
    module = torch.nn.Module()
    module.num_key_value_groups = 6 // shared
    found, _ = attend(module, query, key, value, mask if masked else None, scaling=0.3)
    assert_close(found, written_out(query, key, value, mask if masked else None, 0.3))


def test_a_mask_of_each_head_goes_the_plain_way():
    """A bias such as ALiBi's differs between heads."""
    query, key = torch.ones(1, 2, 1, 2), torch.arange(6.0).reshape(1, 1, 3, 2)
    bias = torch.tensor([[[[0.0, -torch.inf, -torch.inf]], [[-torch.inf, -torch.inf, 0.0]]]])
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    found, _ = attend(module, query, key, key, bias)
    assert found.tolist() == [[[[0.0, 1.0], [4.0, 5.0]]]]


def test_the_model_is_left_as_it_was(tmp_path):
    directory = save_policy(FAMILIES["qwen2.5"], tmp_path / "policy")
    model = policies.load(directory, PolicyConfig(model=str(directory))).model
    with pytest.raises(KeyError), grouped_heads(model):
        assert model.config._attn_implementation == GROUPED
        raise KeyError
    assert model.config._attn_implementation == "sdpa"
