"""The responses that an algorithm trains on, as the tensors that its loss takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.algorithms import Algorithm, Group, Tokens, leave_one_out
from components.data.records import Scored
from components.policy.batches import Batch, collate
from components.policy.logprobs import response_logprobs, response_token_logprobs
from components.policy.model import Policy


@dataclass(frozen=True)
class Selection:
    """The responses that an algorithm trains on, m of K per prompt."""

    indices: NDArray[np.int64]  # (n, m) into K
    win_rate: NDArray[np.float64]  # (n, m), leave-one-out over all K


def selected(data: Scored, algorithm: Algorithm) -> Selection:
    """What an algorithm trains on."""
    win_rate = leave_one_out(data.preference)
    indices = algorithm.select(win_rate)
    return Selection(indices, np.take_along_axis(win_rate, indices, 1))


def length_for(algorithm: Algorithm, data: Scored, selection: Selection, chosen: NDArray[np.int64]) -> float | None:
    """`group_of`'s mean length of the selected responses to some prompts, for algorithms that look at tokens."""
    if not algorithm.needs_tokens:
        return None
    rows = chosen[:, None] * data.rollout.shape[1] + selection.indices[chosen]
    return float(data.rollout.tokens.lengths_of(rows).mean())


def group_of(
    policy: Policy,
    data: Scored,
    selection: Selection,
    chosen: NDArray[np.int64],
    *,
    mean_length: float | None = None,
) -> Group:
    """The tensors of an algorithm's loss for some prompts, one forward pass over their selected responses.

    `mean_length` is that of the optimiser step's responses, in tokens; with it, the group has `tokens`.
    """
    picked = selection.indices[chosen]
    batch = _batch(policy, data, chosen, picked)
    if mean_length is None:
        tokens, logp = None, response_logprobs(policy, batch).reshape(picked.shape)
    else:
        grid = response_token_logprobs(policy, batch).reshape(*picked.shape, -1)
        tokens, logp = _tokens(data, chosen, picked, grid, mean_length), grid.sum(-1)

    def as_tensor(a: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(a, dtype=logp.dtype, device=logp.device)

    old, ref, reward = (
        as_tensor(np.take_along_axis(a[chosen], picked, 1)) for a in (data.logp_old, data.logp_ref, data.reward)
    )
    return Group(logp, old, ref, as_tensor(selection.win_rate[chosen]), reward, tokens)


def _tokens(
    data: Scored, chosen: NDArray[np.int64], picked: NDArray[np.int64], logp: Tensor, mean_length: float
) -> Tokens:
    """What is known of each token of the selected responses; `logp` (n, m, L) is that of the policy in training."""
    assert data.token_logp_old is not None and data.token_logp_ref is not None
    rows = (chosen[:, None] * data.rollout.shape[1] + picked).reshape(-1)
    begins, lengths = data.rollout.tokens.offsets[rows], data.rollout.tokens.lengths_of(rows)
    where = np.arange(logp.shape[-1])
    mask = where < lengths[:, None]
    places = np.where(mask, begins[:, None] + where, 0)

    def as_tensor(a: NDArray[np.float32] | NDArray[np.bool_]) -> Tensor:
        return torch.as_tensor(a * mask, dtype=logp.dtype, device=logp.device).reshape(logp.shape)

    old, ref = as_tensor(data.token_logp_old[places]), as_tensor(data.token_logp_ref[places])
    return Tokens(logp, old, ref, as_tensor(mask), mean_length)


def _batch(policy: Policy, data: Scored, chosen: NDArray[np.int64], picked: NDArray[np.int64]) -> Batch:
    rollout, k = data.rollout, data.rollout.shape[1]
    prompts = [rollout.prompt_tokens[i] for i in chosen]
    responses = [rollout.tokens[i * k + j] for i, row in zip(chosen, picked, strict=True) for j in row]
    alone = policy.sharded is None
    return collate(prompts, responses, policy.pad_id, policy.device, share_prompts=policy.shares_prompts, split=alone)
