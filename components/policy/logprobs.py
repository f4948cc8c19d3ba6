"""Log-probs of responses: prompts are read once for all their responses, and only response positions meet the head."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from components.config.errors import PolicyError
from components.data.records import Ragged
from components.policy.batches import Batch, by_length, collate, distinct_tokens, extended, prefix_positions
from components.policy.causality import require_causal, tolerance
from components.policy.head import head_logits, token_logprobs
from components.policy.model import Policy
from components.runtime.progress import Progress, silent

# What a model raises that makes nothing of the inputs, mask, positions or cache that it is given.
REFUSALS = (
    *(AssertionError, AttributeError, IndexError, KeyError),
    *(NotImplementedError, RuntimeError, TypeError, ValueError),
)


def response_logprobs(policy: Policy, batch: Batch, logits_per_chunk: int | None = None) -> Tensor:
    """log pi(response | prompt) of each response, summed over its tokens (EOS included): (R,), fp32 or wider.

    At the policy's temperature. Differentiable; runs in the policy's autocast.
    """
    logp = flat_logprobs(policy, batch, logits_per_chunk)
    sums = torch.zeros(len(batch.input_ids), dtype=logp.dtype, device=logp.device)
    return sums.index_add(0, batch.rows, logp)[batch.places]


def response_token_logprobs(policy: Policy, batch: Batch) -> Tensor:
    """log pi of each token of each response, (R, L) with L the longest response's length; 0 behind a response's end."""
    logp = flat_logprobs(policy, batch)
    first = torch.full((len(batch.input_ids),), batch.input_ids.shape[1], device=logp.device)
    first = first.scatter_reduce(0, batch.rows, batch.columns, "amin")  # where each row's response begins
    within = batch.columns - first[batch.rows]
    grid = torch.zeros(len(batch.input_ids), int(within.max()) + 1, dtype=logp.dtype, device=logp.device)
    return grid.index_put((batch.rows, within), logp)[batch.places]


def flat_logprobs(policy: Policy, batch: Batch, logits_per_chunk: int | None = None) -> Tensor:
    """log pi of the batch's response tokens in the order of its `targets`, (N,), fp32 or wider."""
    if policy.sharded is not None:
        sharded: Tensor = policy.sharded(batch)
        return sharded
    assert batch.prefix is None or not (policy.gradient_checkpointing and torch.is_grad_enabled())
    with policy.autocast():
        hidden = _hidden(policy, batch)
        return token_logprobs(policy.model, hidden, batch.targets, logits_per_chunk, policy.unused, policy.temperature)


def _hidden(policy: Policy, batch: Batch) -> Tensor:
    """The hidden states that predict the response tokens, (N, H); prompts are read once, keys and values shared."""
    prefix, cache = batch.prefix, None
    if prefix is not None:
        cache = DynamicCache(config=policy.model.config)
        policy.body(
            input_ids=prefix.input_ids,
            attention_mask=prefix.mask,
            position_ids=prefix_positions(prefix),
            past_key_values=cache,
            use_cache=True,
        )
    found = []
    for part in batch.parts:
        ids, owners = batch.input_ids[part.rows, : part.width], batch.owners[part.rows]
        if prefix is None or cache is None:
            output = policy.body(input_ids=ids, use_cache=False)
        else:
            output = policy.body(
                input_ids=ids,
                attention_mask=None if prefix.mask is None else extended(prefix.mask, part.width)[owners],
                position_ids=prefix.lengths[owners][:, None] + torch.arange(part.width, device=ids.device),
                past_key_values=_selected(cache, owners),
                use_cache=True,
            )
        places = batch.rows[part.tokens] - part.rows.start, batch.columns[part.tokens]
        found.append(output.last_hidden_state[places])
    return torch.cat(found)


def _selected(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """A cache of some rows of another, which stays as it is."""
    selected = copy(cache)
    selected.layers = [copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


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
        tokens_per_batch: tokens of prompts and responses that are read together, at least one prompt's.
        progress: called with the number of responses done.
    """
    n, k = len(prompts), len(responses) // len(prompts)
    result = np.empty((n, k))
    for indices, batch in _scoring_batches(policy, prompts, responses, tokens_per_batch, progress):
        result[indices] = response_logprobs(policy, batch).double().cpu().numpy().reshape(-1, k)
    return result


@torch.no_grad()
def score_tokens(
    policy: Policy,
    prompts: Ragged,
    responses: Ragged,
    *,
    tokens_per_batch: int = 8192,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """log pi of each response token, in the order of `responses.values`; arguments as in `score_responses`."""
    k = len(responses) // len(prompts)
    result = np.empty(len(responses.values), dtype=np.float32)
    for indices, batch in _scoring_batches(policy, prompts, responses, tokens_per_batch, progress):
        grid = response_token_logprobs(policy, batch).float().cpu().numpy()
        for row, response in enumerate((indices[:, None] * k + np.arange(k)).reshape(-1)):
            begin, end = responses.offsets[response : response + 2]
            result[begin:end] = grid[row, : end - begin]
    return result


def _scoring_batches(
    policy: Policy, prompts: Ragged, responses: Ragged, tokens_per_batch: int, progress: Progress
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Indices of prompts of similar length, and the batch of all their responses."""
    total, done = len(responses), 0
    k, share = total // len(prompts), policy.caching == "shared"
    sizes = prompts.lengths * (1 if share else k) + distinct_tokens([responses[i] for i in range(total)], k)
    for indices in by_length(prompts.lengths, sizes, tokens_per_batch):
        rows = [responses[i * k + j] for i in indices for j in range(k)]
        together = [prompts[i] for i in indices], rows, policy.pad_id, policy.device
        yield indices, collate(*together, share_prompts=share)
        done += len(rows)
        progress(done, total)


@torch.no_grad()
def check_head(policy: Policy) -> None:
    """Compares `head_logits` with the model's own logits on a few tokens.

    Raises PolicyError for a model that does not run on token ids alone, one whose logits see later tokens or whose
    weights change when it runs, and for an architecture that treats its logits in a way that is not known here.
    """
    ids = torch.arange(1, 9, device=policy.device)[None] % policy.tokenizer.vocab_size
    name = type(policy.model).__name__
    versions = [parameter._version for parameter in policy.model.parameters()]
    try:
        own: Tensor = policy.model(input_ids=ids, use_cache=False).logits
        ours = head_logits(policy.model, policy.body(input_ids=ids, use_cache=False).last_hidden_state)
    except REFUSALS as error:
        raise PolicyError(
            f"policy.model: {name} does not run on token ids alone ({type(error).__name__}: {error}). "
            "Use a causal language model."
        ) from error
    if own.isnan().any():
        raise PolicyError(f"policy.model: {name} gives NaN for logits, its weights are damaged. Download it anew.")
    if versions != [parameter._version for parameter in policy.model.parameters()]:
        raise PolicyError(
            f"policy.model: {name} changes its weights when it runs, so trained ones would be saved wrong. "
            "Use another model; for RWKV, set rescale_every: 0 in config.json."
        )
    require_causal(policy.model, ids, own, f"policy.model: {name}")
    difference = (own - ours).abs().max().item()
    if difference > tolerance(own):
        raise PolicyError(
            f"{name} changes its logits after the head by up to {difference:.3g}, in a "
            "way that components/policy/logprobs.py does not know. Add it to `head_logits`."
        )
