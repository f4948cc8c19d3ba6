"""The data that steps hand to each other: prompts, responses and what is known of them.

Responses live in columns, not in a list of objects, so that 300,000 of them fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

TokenIds = Sequence[int] | NDArray[np.int32] | NDArray[np.int64]


@dataclass(frozen=True)
class Prompt:
    """One prompt. `messages` are chat turns (`role`, `content`); `answer` and `metadata` are for the judge."""

    id: str
    messages: tuple[dict[str, str], ...]
    answer: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Content of the last turn."""
        return self.messages[-1]["content"]

    def copy(self) -> Prompt:
        """One that shares no list or mapping with this, for functions that may change what they are given."""
        return replace(self, messages=tuple(map(dict, self.messages)), metadata=_copied(self.metadata))


def _copied(value: Any) -> Any:
    """A copy of what JSON can hold, many times faster than `deepcopy`."""
    if isinstance(value, dict):
        return {key: _copied(inside) for key, inside in value.items()}
    return [_copied(inside) for inside in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Ragged:
    """Token sequences of unequal length: `values` int32 (total,), `offsets` int64 (count + 1,)."""

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[TokenIds]) -> Ragged:
        """From token id sequences."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(a) for a in arrays], out=offsets[1:])
        values = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        if index < 0:
            raise IndexError(f"sequence {index}: count from 0")  # slicing offsets from the end gives other tokens
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each sequence, shape (count,)."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """`lengths` of some sequences, in the shape of their indices: no work for the others."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def sums(self, figures: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum over each sequence of a figure per token, (total,) to (count,)."""
        total = np.concatenate([[0.0], np.cumsum(figures, dtype=np.float64)])
        sums: NDArray[np.float64] = total[self.offsets[1:]] - total[self.offsets[:-1]]
        return sums


@dataclass(frozen=True)
class Responses:
    """K responses to each of n prompts as token ids, all that training needs. Response k of prompt i is row i·K + k."""

    prompt_ids: list[str]  # n
    prompt_tokens: Ragged  # n sequences
    tokens: Ragged  # n·K sequences; a finished one ends with EOS, or with the token that completes a stop string

    @property
    def shape(self) -> tuple[int, int]:
        """(n, K)."""
        n = len(self.prompt_ids)
        return n, len(self.tokens) // n


@dataclass(frozen=True)
class Rollout(Responses):
    """Responses drawn from one policy, as judges and readers see them."""

    texts: list[str]  # n·K, special tokens removed
    finished: NDArray[np.bool_]  # (n, K), False where the length limit cut the response off
    logp_engine: NDArray[np.float64] | None = None  # (n, K), as `Samples.logp`: to compare with `Scored.logp_old`
    prompt_ends: list[str] | None = None  # n, as `Policy.end` gives them; None: not known
    token_logp: NDArray[np.float32] | None = None  # of each token in `tokens.values`, as `Samples.token_logp`

    def group(self, index: int) -> list[str]:
        """The K texts of prompt `index`."""
        k = self.shape[1]
        return self.texts[index * k : (index + 1) * k]


@dataclass(frozen=True)
class Scored:
    """Responses with log-probs (natural log, summed over response tokens) and preferences.

    `load_scored` leaves the texts out: those of 300,000 responses take as much memory as the token ids.
    """

    rollout: Responses
    logp_old: NDArray[np.float64]  # (n, K), under the policy that drew the responses
    logp_ref: NDArray[np.float64]  # (n, K), under the reference
    preference: NDArray[np.float64]  # (n, K, K), P(y_i > y_j)
    reward: NDArray[np.float64]  # (n, K), the judge's scores; NaN where it compares pairs only
    token_logp_old: NDArray[np.float32] | None = None  # of each token in the order of `rollout.tokens.values`,
    token_logp_ref: NDArray[np.float32] | None = None  # for algorithms with `needs_tokens`
