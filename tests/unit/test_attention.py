"""Both attentions against attention written out, and where each is in use."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from components.config.sections import PolicyConfig
from components.policy import model as policies
from components.policy.attention import (
    GROUPED,
    PLAIN,
    PRECISE,
    attend_in_fp32,
    attend_in_groups,
    for_drawing,
    has_groups,
)
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
    found, _ = attend_in_groups(module, query, key, value, mask if masked else None, scaling=0.3)
    assert_close(found, written_out(query, key, value, mask if masked else None, 0.3))


def test_a_mask_of_each_head_goes_the_plain_way():
    """A bias such as ALiBi's differs between heads."""
    query, key = torch.ones(1, 2, 1, 2), torch.arange(6.0).reshape(1, 1, 3, 2)
    bias = torch.tensor([[[[0.0, -torch.inf, -torch.inf]], [[-torch.inf, -torch.inf, 0.0]]]])
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    found, _ = attend_in_groups(module, query, key, key, bias)
    assert found.tolist() == [[[[0.0, 1.0], [4.0, 5.0]]]]


@pytest.mark.parametrize("shared", [1, 6])
def test_under_autocast_it_computes_in_fp32(shared):
    """Autocast alone would be off by the 8 bits of bf16."""
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, heads, 5, 4, generator=generator) for heads in (6, shared, shared))
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    module = torch.nn.Module()
    module.num_key_value_groups = 6 // shared
    expected = torch.cat(
        [written_out(query[:, :, i : i + 1], key, value, mask[:, :, i : i + 1, :][:, :, 0], 0.5) for i in range(5)], 1
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = attend_in_fp32(module, query, key, value, mask, scaling=0.5)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_result_has_the_dtype_of_the_query():
    query = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    bias = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
    found, _ = attend_in_fp32(torch.nn.Module(), query, query, query, bias)
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "attention"), [("fp32", PLAIN), ("bf16", PRECISE)])
def test_a_policy_trains_with_the_precise_one_in_bf16_only(tmp_path, precision, attention):
    directory = save_policy(FAMILIES["qwen2.5"], tmp_path / "policy")
    model = policies.load(directory, PolicyConfig(model=str(directory)), precision=precision).model
    assert model.config._attn_implementation == attention
    with pytest.raises(KeyError), for_drawing(model, grouped=has_groups(model)):
        assert model.config._attn_implementation == GROUPED
        raise KeyError
    assert model.config._attn_implementation == attention
