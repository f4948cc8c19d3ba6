"""Token ids in padded batches: prompts on the left, responses on the right, and which lengths to put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.records import TokenIds


@dataclass(frozen=True)
class Prefix:
    """What the responses to a prompt share: all of it but its last token, read once for all of them."""

    input_ids: Tensor  # (n, P) int64, left-padded
    mask: Tensor | None  # (n, P) int64, 0 at padding; None without padding
    lengths: Tensor  # (n,) int64, tokens that are not padding


@dataclass(frozen=True)
class Batch:
    """Responses to n prompts in right-padded rows; equal responses to a prompt, common in sharp policies, share one.

    No mask for the rows: in a causal model no token sees the padding behind it.
    """

    prefix: Prefix | None  # None: the rows hold whole prompts
    owners: Tensor  # (B,) int64, prompt of each row
    input_ids: Tensor  # (B, L) int64, what of the prompt is not in the prefix, and the response
    rows: Tensor  # (N,) int64, row of each response token
    columns: Tensor  # (N,) int64, column of the token before it, whose hidden state predicts it
    targets: Tensor  # (N,) int64, the response tokens
    places: Tensor  # (R,) int64, row of each response as given


def collate(prompts: Sequence[TokenIds], responses: Sequence[TokenIds], pad_id: int, device: torch.device) -> Batch:
    """A batch of n prompts, none of them empty, and m responses to each, given as n·m sequences of token ids."""
    first, places = _distinct(responses, len(responses) // len(prompts))
    owners = first * len(prompts) // len(responses)
    responses = [responses[i] for i in first]
    shares = len(first) > len(prompts)
    # One token stays with each response: its hidden state predicts the response's first.
    shared = [len(prompt) - 1 if shares else 0 for prompt in prompts]
    starts = np.array([len(prompts[i]) - shared[i] for i in owners])
    ends = starts + np.array([len(response) for response in responses])
    ids = np.full((len(responses), ends.max()), pad_id, dtype=np.int64)
    for row, (owner, response) in enumerate(zip(owners, responses, strict=True)):
        ids[row, : starts[row]] = prompts[owner][shared[owner] :]
        ids[row, starts[row] : ends[row]] = response
    where = np.arange(ids.shape[1])
    rows, columns = np.nonzero((where >= starts[:, None]) & (where < ends[:, None]))
    # The last column predicts nothing.
    arrays = (owners, ids[:, : max(1, ids.shape[1] - 1)], rows, columns - 1, ids[rows, columns], places)
    prefix = None
    if max(shared) > 0:
        prefix = left_padded([p[:cut] for p, cut in zip(prompts, shared, strict=True)], pad_id, device)
    return Batch(prefix, *(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))


def _distinct(responses: Sequence[TokenIds], m: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the responses that differ from those before them in their group of m, and of each its equal's rank."""
    seen: dict[tuple[int, bytes], int] = {}
    places = np.empty(len(responses), dtype=np.int64)
    first: list[int] = []
    for i, response in enumerate(responses):
        places[i] = seen.setdefault((i // m, np.asarray(response, dtype=np.int64).tobytes()), len(seen))
        if places[i] == len(first):
            first.append(i)
    return np.array(first), places


def distinct_counts(responses: Sequence[TokenIds], m: int) -> NDArray[np.int64]:
    """How many different responses each group of m has, (n,)."""
    first, _ = _distinct(responses, m)
    return np.bincount(first // m, minlength=len(responses) // m)


def left_padded(prompts: Sequence[TokenIds], pad_id: int, device: torch.device) -> Prefix:
    """Prompts padded to one length on the left, so that what follows begins in the same column."""
    lengths = np.array([len(prompt) for prompt in prompts])
    width = lengths.max()
    ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - lengths[row] :] = prompt
    mask = (np.arange(width) >= (width - lengths)[:, None]).astype(np.int64)
    padded = lengths.min() < width
    return Prefix(
        torch.from_numpy(ids).to(device),
        torch.from_numpy(mask).to(device) if padded else None,
        torch.from_numpy(lengths).to(device),
    )


def prefix_positions(prefix: Prefix) -> Tensor:
    """Position ids of a prefix, (n, P): 0 at each row's first token and at the padding before it."""
    width = prefix.input_ids.shape[1]
    return (torch.arange(width, device=prefix.lengths.device) - (width - prefix.lengths)[:, None]).clamp(min=0)


def extended(mask: Tensor, length: int) -> Tensor:
    """A prefix's mask with ones for `length` further tokens, (n, P + length)."""
    return torch.cat([mask, mask.new_ones(len(mask), length)], 1)


def by_length(lengths: NDArray[np.int64], tokens_per_batch: int) -> Iterator[NDArray[np.int64]]:
    """Indices in batches of similar length, longest first, each at most `tokens_per_batch` when padded."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        size = max(1, tokens_per_batch // int(lengths[order[begin]]))
        yield order[begin : begin + size]
        begin += size
