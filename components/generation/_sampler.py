"""Sampling with the policy's own forward: one prefill per prompt shared by its K responses, a growing KV cache.

Faster than `model.generate` because the prompt is read once instead of K times, the cache is not copied at
every token, finished responses leave the batch, and a token costs one cumulative sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from components.batches import extended, left_padded, prefix_positions
from components.generation import Samples, Sampling
from components.logprobs import head_logits
from components.policy import Policy
from components.progress import Progress, silent
from components.records import Ragged, TokenIds

COMPACT = 0.75  # finished responses leave the batch when this share still runs; a copy of the rest's cache each time


def sample(
    policy: Policy,
    prompts: Sequence[TokenIds],
    seeds: NDArray[np.uint64],
    sampling: Sampling,
    *,
    batch_size: int,
    progress: Progress = silent,
) -> Samples:
    """Samples responses; see `Engine.sample`. `batch_size` is the number of responses sampled at once."""
    n, k = seeds.shape
    rows: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * (n * k)
    finished = np.zeros((n, k), dtype=bool)
    # Equal lengths need no padding, so a batch holds prompts of similar length, the longest first.
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    size = max(1, batch_size // k)
    for begin in range(0, n, size):
        indices = order[begin : begin + size]
        batch = [prompts[i] for i in indices]
        drawn, ended = _sample_batch(
            policy, batch, seeds[indices], sampling, lambda done, base=begin * k: progress(base + done, n * k)
        )
        for i, group in zip(indices, range(0, len(drawn), k), strict=True):
            rows[i * k : (i + 1) * k] = drawn[group : group + k]
        finished[indices] = ended.reshape(-1, k)
    return Samples(Ragged.of(rows), finished)


class _RoomyLayer(DynamicLayer):
    """Keys and values in buffers with room for the next tokens: adding one does not copy the cache."""

    _buffers: tuple[Tensor, Tensor] | None = None
    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:  # the prompts, as yet once each
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        old, new = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if self._buffers is None or new > self._buffers[0].shape[-2]:
            self._buffers = self._roomy(self.keys, new), self._roomy(self.values, new)
        self._buffers[0][:, :, old:new] = key_states
        self._buffers[1][:, :, old:new] = value_states
        return self._filled(new)

    def _roomy(self, kept: Tensor, length: int) -> Tensor:
        # Little, since most responses end long before the limit, and a sparse cache is slow to read.
        buffer = kept.new_empty(*kept.shape[:2], length + max(16, length // 8), kept.shape[-1])
        buffer[:, :, : kept.shape[-2]] = kept
        return buffer

    def _filled(self, length: int) -> tuple[Tensor, Tensor]:
        assert self._buffers is not None
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        if self._buffers is None:
            super().batch_select_indices(indices)
        else:
            self._buffers = self._buffers[0][indices], self._buffers[1][indices]
            self._filled(self.get_seq_length())


def _cache(policy: Policy) -> DynamicCache:
    cache = DynamicCache(config=policy.model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Draws one token per row by inverting the cumulative distribution.

    Args:
        logits: (B, V).
        uniforms: (B,) in [0, 1), float64; the row's only randomness, so a row never depends on its neighbours.
        sampling: temperature and top_p; the nucleus is the fewest most likely tokens whose mass reaches top_p.

    Returns:
        (B,) token ids, never one of probability zero.

    Raises:
        FloatingPointError: logits that are not finite.
    """
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        mass = ordered.cumsum(-1, dtype=torch.float64)
        kept = ordered.masked_fill(mass - ordered >= sampling.top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    threshold = (uniforms * cumulative[:, -1]).unsqueeze(-1)
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    if drawn.max() == logits.shape[-1]:  # NaN is past every entry
        raise FloatingPointError(
            "the policy's logits are not finite. Use policy.precision: fp32, or check the weights."
        )
    return drawn


def uniforms_of(seeds: NDArray[np.uint64], length: int) -> NDArray[np.float64]:
    """`length` numbers in [0, 1) for each seed, (B, length): multiples of 2^-32, so none rounds up to 1."""
    draws = [np.random.Philox(key=int(seed)).random_raw(length) for seed in seeds]
    uniforms: NDArray[np.float64] = (np.stack(draws) >> np.uint64(32)).astype(np.float64) * 2.0**-32
    return uniforms


@torch.inference_mode()
def _sample_batch(
    policy: Policy,
    prompts: Sequence[TokenIds],
    seeds: NDArray[np.uint64],
    sampling: Sampling,
    progress: Any,
) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """K responses per prompt of one batch, and which of them ended with EOS."""
    device, k, limit = policy.device, seeds.shape[1], sampling.max_new_tokens
    prefix = left_padded(prompts, policy.pad_id, device)
    attention = None if prefix.mask is None else extended(prefix.mask, limit)
    ids, lengths, positions = prefix.input_ids, prefix.lengths, prefix_positions(prefix)
    uniforms = torch.from_numpy(uniforms_of(seeds.reshape(-1), limit)).to(device)
    eos = torch.tensor(policy.eos_ids, device=device)
    total = len(uniforms)
    tokens = torch.zeros(total, limit, dtype=torch.int64, device=device)
    rows = torch.arange(total, device=device)  # rows of `tokens` that the batch still holds
    running = torch.ones(total, dtype=torch.bool, device=device)  # which of them have not ended

    cache = _cache(policy)
    with policy.autocast():  # entered once: it keeps the weights it has cast
        hidden = _last_hidden(policy, cache, ids, attention, positions)
        cache.batch_repeat_interleave(k)
        hidden, lengths = hidden.repeat_interleave(k, 0), lengths.repeat_interleave(k)
        attention = None if attention is None else attention.repeat_interleave(k, 0)
        for step in range(limit):
            drawn = draw(head_logits(policy.model, hidden), uniforms[rows, step], sampling)
            tokens[rows, step] = drawn
            running &= ~torch.isin(drawn, eos)
            left = int(running.sum())
            progress(total - left if step < limit - 1 else total)
            if left == 0 or step == limit - 1:
                break
            if left <= COMPACT * len(rows):
                cache.batch_select_indices(running)
                rows, drawn, lengths = rows[running], drawn[running], lengths[running]
                attention = None if attention is None else attention[running]
                running = running[running]
            hidden = _last_hidden(policy, cache, drawn[:, None], attention, (lengths + step)[:, None])
    return _until_eos(tokens, eos)


def _last_hidden(policy: Policy, cache: DynamicCache, ids: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
    """Hidden states of the last position, (B, H)."""
    length = cache.get_seq_length() + ids.shape[1]
    output = policy.model.base_model(
        input_ids=ids,
        attention_mask=None if mask is None else mask[:, :length],
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    hidden: Tensor = output.last_hidden_state[:, -1]
    return hidden


def _until_eos(tokens: Tensor, eos: Tensor) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """Each row up to its first EOS, and whether there is one; what stands behind it was drawn for nothing."""
    stops = torch.isin(tokens, eos).cpu().numpy()
    ended: NDArray[np.bool_] = np.asarray(stops.any(1))
    ends = np.where(ended, stops.argmax(1) + 1, tokens.shape[1])
    return [row[:end] for row, end in zip(tokens.cpu().numpy(), ends, strict=True)], ended
