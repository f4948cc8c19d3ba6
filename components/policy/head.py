"""A model's head over hidden states, and the log-probs of the tokens that follow them.

Full logits of a batch in fp32 would be the largest tensor of the whole run (8 GB for 16 x 1024 positions and
128k tokens), so they never exist: the head runs over chunks, and backward computes each chunk again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from components.policy.library import PreTrainedConfig, PreTrainedModel

# 64 MiB in fp32 on a CPU, near its caches. On a GPU 512: with the small ones, the head's weights and their gradient
# pass through memory a hundred times for a batch of 8,192 tokens and a vocabulary of 150,000.
LOGITS_PER_CHUNK = {"cpu": 2**24, "cuda": 2**27}
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma 2's, RecurrentGemma's, xLSTM's


def head_logits(model: PreTrainedModel, hidden: Tensor, unused: Tensor | None = None) -> Tensor:
    """The model's logits of hidden states, (N, H) to (N, V), at least in fp32.

    Follows what Hugging Face models do after the head: Granite and Cohere scale, Gemma 2 and others cap softly. Those
    of ids that are True in `unused`, (V,), are -inf.
    """
    config = model.config.get_text_config()
    logits: Tensor = model.get_output_embeddings()(hidden)
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    scale = _factor(config, "logit_scale") / _factor(config, "logits_scaling")
    if scale != 1:  # else a copy of the largest tensor for nothing
        logits = logits * scale
    cap = next((value for name in CAPS if (value := getattr(config, name, None)) is not None), None)
    logits = logits if cap is None else torch.tanh(logits / cap) * cap
    return logits if unused is None else logits.masked_fill(unused, -torch.inf)


def _factor(config: PreTrainedConfig, name: str) -> float:
    """A number of a config; 1 where it is absent or, as MPT has it, something else."""
    value = getattr(config, name, None)
    return float(value) if isinstance(value, (int, float)) else 1.0


class _TargetLogprobs(torch.autograd.Function):
    """Log-softmax of logits (N, V) at targets (N,), (N,).

    The gradients of torch's own `logsumexp` and `gather` fill buffers of that size a dozen times, this one thrice.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, normaliser: list[Tensor]) -> Tensor:
        """`normaliser` is filled by the first call, and spares the second one, of a checkpoint, to compute it again."""
        if not normaliser:
            normaliser.append(logits.logsumexp(-1))
        ctx.save_for_backward(logits, targets, normaliser[0])
        return logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """gradient · (onehot(target) - softmax(logits))."""
        logits, targets, normaliser = ctx.saved_tensors
        found = torch.sub(logits, normaliser[:, None]).exp_().mul_(-gradient[:, None])
        return found.scatter_add_(-1, targets[:, None], gradient[:, None]), None, None


def token_logprobs(
    model: PreTrainedModel,
    hidden: Tensor,
    targets: Tensor,
    logits_per_chunk: int | None = None,
    unused: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Log-prob of each target token at a temperature, (N, H) and (N,) to (N,), without (N, V) logits in memory.

    With gradients and more than one chunk, a chunk's logits are computed again in the backward pass.
    """

    def chunk_logprobs(hidden: Tensor, targets: Tensor, normaliser: list[Tensor]) -> Tensor:
        logits = head_logits(model, hidden, unused)
        logits = logits if temperature == 1 else logits / temperature
        logp: Tensor = _TargetLogprobs.apply(logits, targets, normaliser)  # type: ignore[no-untyped-call]
        return logp

    most = logits_per_chunk or LOGITS_PER_CHUNK.get(hidden.device.type, LOGITS_PER_CHUNK["cpu"])
    size = max(1, most // model.get_output_embeddings().weight.shape[0])
    if len(hidden) <= size:
        return chunk_logprobs(hidden, targets, [])
    pieces = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    if torch.is_grad_enabled():
        return torch.cat(
            [checkpoint(chunk_logprobs, *piece, [], use_reentrant=False, preserve_rng_state=False) for piece in pieces]
        )
    return torch.cat([chunk_logprobs(*piece, []) for piece in pieces])
