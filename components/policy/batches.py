"""Token ids in padded batches: prompts on the left, responses on the right, and which lengths to put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.data.records import TokenIds

OVERHEAD = 256  # tokens that a GPU or a core reads in the time that it takes to begin another forward pass


@dataclass(frozen=True)
class Prefix:
    """What the responses to a prompt share: all of it but its last token, read once for all of them."""

    input_ids: Tensor  # (n, P) int64, left-padded
    mask: Tensor | None  # (n, P) int64, 0 at padding; None without padding
    lengths: Tensor  # (n,) int64, tokens that are not padding


@dataclass(frozen=True)
class Part:
    """Rows of a batch, of similar length, that are read in one forward pass."""

    rows: slice
    tokens: slice  # response tokens of these rows
    width: int  # tokens of the longest row


@dataclass(frozen=True)
class Batch:
    """Responses to n prompts in right-padded rows; equal responses to a prompt, common in sharp policies, share one.

    No mask for the rows: in a causal model no token sees the padding behind it.
    """

    prefix: Prefix | None  # None: the rows hold whole prompts
    parts: Sequence[Part]  # of all rows, in order
    owners: Tensor  # (B,) int64, prompt of each row
    input_ids: Tensor  # (B, L) int64, the longest row first: the prompt, or its last token after a prefix; the response
    rows: Tensor  # (N,) int64, row of each response token
    columns: Tensor  # (N,) int64, column of the token before it, whose hidden state predicts it
    targets: Tensor  # (N,) int64, the response tokens
    places: Tensor  # (R,) int64, row of each response as given


def collate(
    prompts: Sequence[TokenIds],
    responses: Sequence[TokenIds],
    pad_id: int,
    device: torch.device,
    *,
    share_prompts: bool = True,
    split: bool = True,
) -> Batch:
    """A batch of n prompts, none of them empty, and m responses to each, given as n·m sequences of token ids.

    Several responses share a prefix unless `share_prompts` is False, for models that cannot fill a cache. Without
    `split` there is one part, for processes that must all make as many forward passes.
    """
    first, places = _distinct(responses, len(responses) // len(prompts))
    shares = share_prompts and len(first) > len(prompts)
    # One token stays with each response: its hidden state predicts the response's first.
    shared = [len(prompt) - 1 if shares else 0 for prompt in prompts]
    owners = first * len(prompts) // len(responses)
    starts = np.array([len(prompts[i]) - shared[i] for i in owners])
    ends = starts + np.array([len(responses[i]) for i in first])
    order = np.argsort(-ends, kind="stable")
    owners, starts, ends, places = owners[order], starts[order], ends[order], np.argsort(order)[places]
    responses = [responses[i] for i in first[order]]
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
    parts = []
    for begin, end in partition(np.maximum(1, ends - 1)) if split else [(0, len(ends))]:
        first_token, last_token = np.searchsorted(rows, (begin, end))
        parts.append(Part(slice(begin, end), slice(first_token, last_token), max(1, int(ends[begin]) - 1)))
    return Batch(prefix, parts, *(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))


def partition(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cuts rows, the longest first, into ranges for which padded tokens and the overhead of each are fewest."""
    cuts = np.array([0, *(np.flatnonzero(np.diff(lengths)) + 1), len(lengths)])  # equal lengths stay together
    fewest, begins = np.zeros(1), [0]
    for end in range(1, len(cuts)):
        costs = fewest + (cuts[end] - cuts[:end]) * lengths[cuts[:end]] + OVERHEAD
        begins.append(int(costs.argmin()))
        fewest = np.append(fewest, costs.min())
    ranges, end = [], len(cuts) - 1
    while end > 0:
        ranges.append((int(cuts[begins[end]]), int(cuts[end])))
        end = begins[end]
    return ranges[::-1]


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


def distinct_tokens(responses: Sequence[TokenIds], m: int) -> NDArray[np.int64]:
    """Tokens of the different responses in each group of m, (n,)."""
    first, _ = _distinct(responses, m)
    tokens = np.zeros(len(responses) // m, dtype=np.int64)
    np.add.at(tokens, first // m, [len(responses[i]) for i in first])
    return tokens


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


def by_length(
    lengths: NDArray[np.int64], sizes: NDArray[np.int64], tokens_per_batch: int
) -> Iterator[NDArray[np.int64]]:
    """Indices in batches of similar length, the longest first; their sizes add up to `tokens_per_batch` at most.

    An index that is larger alone makes a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    begin, filled = 0, 0
    for place, size in enumerate(sizes[order].tolist()):
        if filled + size > tokens_per_batch and place > begin:
            yield order[begin:place]
            begin, filled = place, 0
        filled += size
    yield order[begin:]
