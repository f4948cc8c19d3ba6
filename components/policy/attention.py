"""Torch's attention in two forms of our own, for models in transformers' common form.

`GROUPED`, while tokens are drawn: transformers copies keys and values to all query heads wherever a mask hides padding.
For a single query those heads can stand in the place of its positions: one product, the same result, and of SmolLM2's
sampling a fifth of the time. `PRECISE`, for CPUs under autocast: torch's backward of attention in bf16 took four times
as long there as in fp32, and on short sequences most of the training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from components.policy.library import AttentionInterface, AttentionMaskInterface, PreTrainedModel

PLAIN, GROUPED, PRECISE = "sdpa", "sdpa_grouped_decoding", "sdpa_in_fp32"


def use_precise(model: PreTrainedModel) -> None:
    """From now on the model's attention computes in fp32, also under autocast; no-op for one with another attention."""
    config = model.config.get_text_config()
    if config._attn_implementation == PLAIN and model._supports_attention_backend:
        config._attn_implementation = PRECISE


@contextmanager
def as_loaded(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """Within it, the model's attention is that of a policy loaded in this precision."""
    config = model.config.get_text_config()
    own = config._attn_implementation
    if precision == "bf16" and model.device.type == "cpu":
        use_precise(model)
    try:
        yield
    finally:
        config._attn_implementation = own


@contextmanager
def for_drawing(model: PreTrainedModel, *, grouped: bool) -> Iterator[None]:
    """Within it, single queries are computed in groups of heads if `grouped`, for models that `has_groups`.

    None is in `PRECISE`.
    """
    config = model.config.get_text_config()
    own = config._attn_implementation
    if own in (PLAIN, PRECISE):
        config._attn_implementation = GROUPED if grouped else PLAIN
    try:
        yield
    finally:
        config._attn_implementation = own


def has_groups(model: PreTrainedModel) -> bool:
    """Whether query heads share key-value heads; looks at every module, so not to be asked for each token."""
    return any(getattr(module, "num_key_value_groups", 1) > 1 for module in model.modules())


def attend_in_groups(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers' `sdpa_attention_forward`: query (B, H, Q, D), key and value (B, G, T, D) to (B, Q, H, D).

    G is the number of key-value heads.
    """
    batch, heads, positions, _ = query.shape
    alike = attention_mask is None or attention_mask.shape[1] == 1  # for all heads
    if positions > 1 or key.shape[1] == heads or not alike or options.get("position_bias") is not None:
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    groups = query.reshape(batch, key.shape[1], -1, query.shape[-1])
    output = scaled_dot_product_attention(
        groups, key, value, attention_mask, options.get("dropout", 0.0), scale=options.get("scaling")
    )
    return output.reshape(batch, 1, heads, -1), None


def attend_in_fp32(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As `attend_in_groups`, in the dtype of the query."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast(query.device.type, enabled=False):
        inputs = query.float(), key.float(), value.float()
        output, _ = sdpa_attention_forward(module, *inputs, attention_mask, **options)
    return output.to(query.dtype), None


for name, attention in ((GROUPED, attend_in_groups), (PRECISE, attend_in_fp32)):
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
