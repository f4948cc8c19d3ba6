"""What a sampler needs before each token, the hidden states that predict it: from a cache, or by reading all again.

How far an architecture's cache can be trusted is `Policy.caching`, which `components.generation._caching` finds out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionCacheLayerMixin

from components.data.records import TokenIds
from components.policy.attention import for_drawing, has_groups
from components.policy.batches import extended, left_padded, prefix_positions
from components.policy.model import Policy


class Decoder(ABC):
    """Rows that grow by a token at a time: B = n·K at first, row i·K + k for response k to prompt i."""

    @abstractmethod
    def first(self) -> Tensor:
        """Hidden states behind the prompts, (B, H)."""

    @abstractmethod
    def keep(self, running: Tensor) -> None:
        """Drops the rows that are False in `running`, (B,)."""

    @abstractmethod
    def following(self, drawn: Tensor) -> Tensor:
        """Hidden states behind the tokens just drawn, (B,) to (B, H)."""


def decoder(policy: Policy, prompts: Sequence[TokenIds], k: int, limit: int) -> Decoder:
    """For K responses of at most `limit` tokens to each prompt, of one length if the cache takes no padding."""
    kind = ReadingDecoder if policy.caching == "none" else CachedDecoder
    return kind(policy, prompts, k, limit)


class CachedDecoder(Decoder):
    """Reads each prompt once for its K responses, and of those one token at a time."""

    def __init__(self, policy: Policy, prompts: Sequence[TokenIds], k: int, limit: int) -> None:
        self._policy, self._k, self._cache = policy, k, _cache(policy)
        prefix = left_padded(prompts, policy.pad_id, policy.device)
        self._ids, self._lengths, self._positions = prefix.input_ids, prefix.lengths, prefix_positions(prefix)
        self._mask = None if prefix.mask is None else extended(prefix.mask, limit)
        self._read = 0  # tokens in the cache, padding included
        self._known = signature(policy.body.forward).parameters
        self._grouped = has_groups(policy.model)

    def first(self) -> Tensor:
        hidden = self._forward(self._ids, self._positions)
        every = torch.arange(len(hidden), device=hidden.device).repeat_interleave(self._k)
        self._select(every)
        return hidden[every]

    def keep(self, running: Tensor) -> None:
        self._select(running.nonzero()[:, 0])

    def following(self, drawn: Tensor) -> Tensor:
        hidden = self._forward(drawn[:, None], self._lengths[:, None])
        self._lengths = self._lengths + 1
        return hidden

    def _select(self, rows: Tensor) -> None:
        for layer in self._cache.layers:
            if isinstance(layer, LinearAttentionCacheLayerMixin):  # it has no other way, and this one takes any rows
                layer.reorder_cache(rows)
            else:
                layer.batch_select_indices(rows)
        self._lengths = self._lengths[rows]
        self._mask = None if self._mask is None else self._mask[rows]

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden states of the last position, (B, H)."""
        self._read += ids.shape[1]
        known = self._known
        inputs = {
            "attention_mask": None if self._mask is None else self._mask[:, : self._read],
            "position_ids": positions,
            "cache_params" if "cache_params" in known else "past_key_values": self._cache,
        }
        open_ended = any(parameter.kind == Parameter.VAR_KEYWORD for parameter in known.values())
        taken = {name: value for name, value in inputs.items() if open_ended or name in known}
        with for_drawing(self._policy.model, grouped=self._grouped):
            output = self._policy.body(input_ids=ids, **taken, use_cache=True)
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden


class ReadingDecoder(Decoder):
    """Reads whole rows again for each token, padded on the right, where no token sees it: slow, and needs no cache."""

    def __init__(self, policy: Policy, prompts: Sequence[TokenIds], k: int, limit: int) -> None:
        lengths = [len(prompt) for prompt in prompts]
        ids = np.full((len(prompts), max(lengths) + limit), policy.pad_id, dtype=np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        self._policy, self._k = policy, k
        self._ids, self._lengths = torch.from_numpy(ids).to(policy.device), torch.tensor(lengths, device=policy.device)

    def first(self) -> Tensor:
        hidden = self._hidden()
        every = torch.arange(len(hidden), device=hidden.device).repeat_interleave(self._k)
        self._ids, self._lengths = self._ids[every], self._lengths[every]
        return hidden[every]

    def keep(self, running: Tensor) -> None:
        self._ids, self._lengths = self._ids[running], self._lengths[running]

    def following(self, drawn: Tensor) -> Tensor:
        self._ids[torch.arange(len(drawn), device=drawn.device), self._lengths] = drawn
        self._lengths = self._lengths + 1
        return self._hidden()

    def _hidden(self) -> Tensor:
        output = self._policy.body(input_ids=self._ids[:, : int(self._lengths.max())], use_cache=False)
        rows = torch.arange(len(self._ids), device=self._ids.device)
        hidden: Tensor = output.last_hidden_state[rows, self._lengths - 1]
        return hidden


class _RoomyLayer(DynamicLayer):
    """Keys and values in buffers with room for the next tokens: adding one does not copy the cache."""

    _buffers: tuple[Tensor, Tensor] | None = None
    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        device = key_states.device.type
        if torch.is_autocast_enabled(device):  # attention would cast the whole cache for each token
            kept = torch.get_autocast_dtype(device)
            key_states, value_states = key_states.to(kept), value_states.to(kept)
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
