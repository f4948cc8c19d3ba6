"""Whether a model reads from left to right alone, as whatever predicts a next token must."""

from __future__ import annotations

import torch
from torch import Tensor

from components.config.errors import PolicyError
from components.policy.library import PreTrainedModel


def tolerance(own: Tensor) -> float:
    """Most by which two ways to the same logits may differ."""
    return (3e-2 if own.dtype in (torch.bfloat16, torch.float16) else 1e-4) * own.abs().max().item()


@torch.no_grad()
def require_causal(model: PreTrainedModel, ids: Tensor, own: Tensor, begin: str) -> None:
    """Raises PolicyError for a model whose logits depend on later tokens.

    Args:
        model: in eval mode.
        ids: (1, L), L of 2 or more.
        own: its logits of them, (1, L, V).
        begin: of the message, such as "policy.model: LlamaForCausalLM".
    """
    half = ids.shape[1] // 2
    before: Tensor = model(input_ids=ids[:, :half], use_cache=False).logits
    if (before - own[:, :half]).abs().max().item() > tolerance(own):
        raise PolicyError(f"{begin} is not causal: its logits depend on later tokens. Use a causal language model.")
