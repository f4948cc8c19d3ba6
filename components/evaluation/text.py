"""What responses look like, whatever the judge says of them: length, distinct n-grams, repetition.

Distinct-n is the share of different n-grams among all (Li et al. 2016, arXiv 1510.03055), within one response and over
the responses to different prompts; repetition is 1 - distinct-4 within a response (Welleck et al. 2020, arXiv
1908.04319). N-grams are of the policy's tokens, which every language has; the token that ends a response is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.records import Ragged, Rollout

ORDERS = (1, 2, 3)  # of the n-grams of distinct-n
REPEATED = 4  # of those of `repetition`: a phrase; shorter ones recur in any text

# Columns of `history`, each also with `_reference`; beside them `response_length` and `truncated`.
FIGURES = (
    *(f"distinct_{order}{place}" for place in ("", "_across") for order in ORDERS),
    *("repetition", "similarity"),
)
REFERENCE = "_reference"
COLUMNS = (
    *(f"response_length{REFERENCE}", f"truncated{REFERENCE}"),
    *(f"{name}{side}" for name in FIGURES for side in ("", REFERENCE)),
)

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Text:
    """M responses to each of n prompts. Figures of single responses are (n, M)."""

    length: Figures  # tokens, with the one that ends it
    truncated: Figures  # 0 or 1: whether the length limit cut it off
    distinct: dict[int, Figures]  # by the order of the n-grams; NaN for a response with none
    repetition: Figures  # 0 for a response of fewer than `REPEATED` tokens
    across: dict[int, float]  # distinct-n over the responses to different prompts
    similarity: Figures | None = None  # cosine to the prompt, of `similarity.measured`

    def figures(self) -> dict[str, float]:
        """Means over all responses, by the names of the columns of `history`."""
        alike = {} if self.similarity is None else {"similarity": float(self.similarity.mean())}
        return {
            "response_length": float(self.length.mean()),
            "truncated": float(self.truncated.mean()),
            **{f"distinct_{order}": mean(values) for order, values in self.distinct.items()},
            **{f"distinct_{order}_across": value for order, value in self.across.items()},
            "repetition": float(self.repetition.mean()),
            **alike,
        }


def measured(rollout: Rollout, similarity: Figures | None = None) -> Text:
    """The figures of a rollout's responses."""
    body = bodies(rollout)
    shape = rollout.shape
    repetition = 1 - within(body, REPEATED)
    return Text(
        length=rollout.tokens.lengths.reshape(shape).astype(np.float64),
        truncated=(~rollout.finished).astype(np.float64),
        distinct={order: within(body, order).reshape(shape) for order in ORDERS},
        repetition=np.nan_to_num(repetition).reshape(shape),
        across={order: across(body, order, shape[1])[0] for order in ORDERS},
        similarity=similarity,
    )


def bodies(rollout: Rollout) -> Ragged:
    """The responses without the tokens that end them."""
    return cut(rollout.tokens, rollout.tokens.lengths - rollout.finished.reshape(-1))


def cut(tokens: Ragged, lengths: NDArray[np.int64]) -> Ragged:
    """The first tokens of each sequence, so many as `lengths`, (count,), says."""
    return Ragged.of(tokens[row][:length] for row, length in enumerate(lengths))


def equally_long(ours: Ragged, theirs: Ragged) -> tuple[Ragged, Ragged]:
    """Both with each sequence cut to the length of the other's of that number.

    The longer a text, the fewer of its n-grams are new: only texts of one length compare.
    """
    shorter = np.minimum(ours.lengths, theirs.lengths)
    return cut(ours, shorter), cut(theirs, shorter)


def within(tokens: Ragged, order: int) -> Figures:
    """Distinct-n of each sequence, (count,); NaN for one of fewer than `order` tokens."""
    grams, owner = _grams(tokens, order)
    number = np.bincount(owner, minlength=len(tokens))
    kinds = int(grams.max(initial=0)) + 1
    different = np.bincount(np.unique(owner * kinds + grams) // kinds, minlength=len(tokens))
    shares: Figures = np.divide(different, number, out=np.full(len(tokens), np.nan), where=number > 0)
    return shares


def across(tokens: Ragged, order: int, m: int) -> tuple[float, Figures]:
    """Distinct-n over the responses to different prompts, and its jackknife over prompts.

    One response of each prompt at a time, and the mean over the M choices: where a prompt has one right answer, a
    policy that gives it each time is none the worse.

    Args:
        tokens: n·M sequences, those of a prompt side by side.
        order: of the n-grams.
        m: responses per prompt.

    Returns:
        The share, NaN without n-grams; and pseudo-values, (n,), whose spread tells the share's standard error (Tukey
        1958): n times the share less n - 1 times that without the prompt.
    """
    grams, owner = _grams(tokens, order)
    prompt, which = owner // m, owner % m
    n = len(tokens) // m
    each = [_share(grams[which == k], prompt[which == k], n) for k in range(m)]
    return float(np.mean([share for share, _ in each])), np.mean([without for _, without in each], axis=0)


def _share(grams: NDArray[np.int64], prompt: NDArray[np.int64], n: int) -> tuple[float, Figures]:
    """Different n-grams as a share of all, and the pseudo-values of the prompts that have them."""
    if not len(grams):
        return math.nan, np.full(n, math.nan)
    kinds, number = len(np.unique(grams)), len(grams)
    pairs = np.unique(grams * n + prompt)  # an n-gram once for each prompt that has it
    _, place, prompts_with = np.unique(pairs // n, return_inverse=True, return_counts=True)
    own = np.bincount((pairs % n)[prompts_with[place] == 1], minlength=n)  # n-grams that no other prompt has
    left = number - np.bincount(prompt, minlength=n)
    share = kinds / number
    without = np.divide(kinds - own, left, out=np.full(n, share), where=left > 0)
    return share, n * share - (n - 1) * without


def _grams(tokens: Ragged, order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each n-gram as a number, equal ones alike, and the sequence that it stands in; none reaches into the next."""
    values = tokens.values.astype(np.int64)
    owner = np.repeat(np.arange(len(tokens)), tokens.lengths)
    _, grams = np.unique(values, return_inverse=True)
    kinds = int(grams.max(initial=0)) + 1
    found = grams
    for further in range(1, order):
        _, found = np.unique(found[: len(grams) - further] * kinds + grams[further:], return_inverse=True)
    whole = owner[: len(found)] == owner[order - 1 :]
    return found[whole].astype(np.int64), owner[: len(found)][whole]


def mean(values: Figures) -> float:
    """Of those that are numbers; NaN where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
