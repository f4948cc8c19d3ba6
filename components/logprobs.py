"""Log-probs of responses: only response positions meet the vocabulary, a few thousand tokens at a time.

Full logits of a batch in fp32 would be the largest tensor of the whole run (8 GB for 16 x 1024 positions and
128k tokens), so they never exist: the head runs over chunks, and backward computes each chunk again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from components.errors import PolicyError
from components.policy import Policy
from components.progress import Progress, silent
from components.records import Ragged, TokenIds

LOGITS_PER_CHUNK = 2**24  # 64 MiB in fp32


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of prompt and response. No mask: in a causal model no token sees the padding behind it."""

    input_ids: Tensor  # (B, L) int64
    rows: Tensor  # (N,) int64, row of each response token
    positions: Tensor  # (N,) int64, its position in the row


def collate(prompts: Sequence[TokenIds], responses: Sequence[TokenIds], pad_id: int, device: torch.device) -> Batch:
    """Pads B pairs of prompt and response token ids to one length."""
    starts = np.array([len(p) for p in prompts])
    ends = starts + np.array([len(r) for r in responses])
    ids = np.full((len(prompts), ends.max()), pad_id, dtype=np.int64)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, : starts[row]] = prompt
        ids[row, starts[row] : ends[row]] = response
    columns = np.arange(ids.shape[1])
    rows, positions = np.nonzero((columns >= starts[:, None]) & (columns < ends[:, None]))
    return Batch(*(torch.from_numpy(a).to(device) for a in (ids, rows, positions)))


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The model's logits of hidden states, (N, H) to (N, V), at least in fp32.

    Follows what Hugging Face models do after the head: Granite and Cohere scale, Gemma 2 caps softly.
    """
    config = model.config.get_text_config()
    logits: Tensor = model.get_output_embeddings()(hidden)
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    if scale != 1:  # else a copy of the largest tensor for nothing
        logits = logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def token_logprobs(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, logits_per_chunk: int = LOGITS_PER_CHUNK
) -> Tensor:
    """Log-prob of each target token, (N, H) and (N,) to (N,), without (N, V) logits in memory.

    With gradients and more than one chunk, a chunk's logits are computed again in the backward pass.
    """

    def chunk_logprobs(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = head_logits(model, hidden)
        return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)

    size = max(1, logits_per_chunk // model.get_output_embeddings().weight.shape[0])
    if len(hidden) <= size:
        return chunk_logprobs(hidden, targets)
    pieces = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    if torch.is_grad_enabled():
        return torch.cat(
            [checkpoint(chunk_logprobs, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
        )
    return torch.cat([chunk_logprobs(*piece) for piece in pieces])


def response_logprobs(policy: Policy, batch: Batch, logits_per_chunk: int = LOGITS_PER_CHUNK) -> Tensor:
    """log pi(response | prompt) of each row, summed over response tokens (EOS included): (B,), fp32 or wider.

    Differentiable; runs in the policy's autocast.
    """
    with policy.autocast():
        hidden = policy.model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        before = hidden[batch.rows, batch.positions - 1]  # a token is predicted one position earlier
        targets = batch.input_ids[batch.rows, batch.positions]
        logp = token_logprobs(policy.model, before, targets, logits_per_chunk)
    sums = torch.zeros(len(batch.input_ids), dtype=logp.dtype, device=logp.device)
    return sums.index_add(0, batch.rows, logp)


def by_length(lengths: NDArray[np.int64], tokens_per_batch: int) -> Iterator[NDArray[np.int64]]:
    """Indices in batches of similar length, longest first, each at most `tokens_per_batch` when padded."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        size = max(1, tokens_per_batch // int(lengths[order[begin]]))
        yield order[begin : begin + size]
        begin += size


@torch.no_grad()
def score_responses(
    policy: Policy,
    prompts: Ragged,
    responses: Ragged,
    *,
    tokens_per_batch: int = 8192,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """log pi(response | prompt) of K responses to each of n prompts, as (n, K).

    Args:
        policy: whose log-probs.
        prompts: n sequences.
        responses: n·K sequences, row i·K + k.
        tokens_per_batch: padded tokens of one forward pass.
        progress: called with the number of responses done.
    """
    n, total = len(prompts), len(responses)
    owner = np.arange(total) // (total // n)
    lengths = prompts.lengths[owner] + responses.lengths
    result = np.empty(total)
    done = 0
    for indices in by_length(lengths, tokens_per_batch):
        pairs = [(prompts[owner[i]], responses[i]) for i in indices]
        batch = collate([p for p, _ in pairs], [r for _, r in pairs], policy.pad_id, policy.device)
        result[indices] = response_logprobs(policy, batch).double().cpu().numpy()
        done += len(indices)
        progress(done, total)
    return result.reshape(n, -1)


@torch.no_grad()
def check_head(policy: Policy) -> None:
    """Compares `head_logits` with the model's own logits on a few tokens.

    Raises PolicyError for a model whose logits see later tokens, and for an architecture that treats its logits in a
    way that is not known here.
    """
    ids = torch.arange(1, 9, device=policy.device)[None] % policy.tokenizer.vocab_size
    name = type(policy.model).__name__
    own: Tensor = policy.model(input_ids=ids).logits
    tolerance = 1e-4 * own.abs().max().item()
    if (policy.model(input_ids=ids[:, :4]).logits - own[:, :4]).abs().max().item() > tolerance:
        raise PolicyError(f"{name} is not causal: its logits depend on later tokens. Use a causal language model.")
    ours = head_logits(policy.model, policy.model.base_model(input_ids=ids).last_hidden_state)
    difference = (own - ours).abs().max().item()
    if difference > tolerance:
        raise PolicyError(
            f"{name} changes its logits after the head by up to {difference:.3g}, in a "
            "way that components/logprobs.py does not know. Add it to `head_logits`."
        )
