"""What hints at reward hacking: a policy's responses against the reference's, whatever the judge says of them.

A sentence for each figure that moved by much and clearly: by a threshold below or more, and the interval of the
difference over prompts leaves out 0. Thresholds lie beyond what sound training did: the demo, and SmolLM2 under six
methods, whose responses met up to four times as many constraints as before, and on the near side of what BOND and DPO
made of it in the longest runs, where its text fell apart (benchmarks/results/real_model.jsonl).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.data.records import Ragged, Rollout
from components.evaluation import length_control, text
from components.evaluation.intervals import interval
from components.evaluation.metrics import WinRate, win_rate
from components.evaluation.text import Text
from components.judges import Judgement
from components.training.learning import SHORT

if TYPE_CHECKING:
    from components.algorithms import BaseAlgorithm

FEWEST = 8  # prompts; the spread of fewer says little
SURE = 0.997  # three standard errors: ten figures in each of ten iterations are looked at
# SmolLM2 went down to 0.36 of its length where it learned to end before the limit, and never up.
LONGER, SHORTER = 1.5, 0.25  # times the reference's tokens
CUT_OFF = 0.2  # more of the responses; sound training lowered the share
REPEATS = 0.1  # more of the n-grams of order `text.REPEATED`
SAMENESS = 0.75  # of the reference's distinct-n within a response, at equal length
ALIKE = 0.7  # of its distinct-n over prompts, where a learned form of answers shows too: a title, a closing sentence
# Cosines of all-MiniLM-L6-v2 between SmolLM2's answers and their prompts, 0.35 in the mean, and other prompts, 0.09.
# Sound training moved them by -0.07 to 0.23; a prompt against itself has 1.
OFF_TOPIC, COPIED = 0.1, 0.25
# Sampled text has 1 to 3 nats of entropy per token, and whole alignment runs end at 0.01 to 0.6 from the reference.
DRIFTED = 1.0  # nats per token
BY_LENGTH = 0.1  # of the win rate, which is gone at equal length


@dataclass(frozen=True)
class Compared:
    """A policy and the reference on the same prompts."""

    ours: Rollout
    theirs: Rollout
    policy: Text  # of `ours`
    reference: Text  # of `theirs`
    kl: NDArray[np.float64]  # (n, M), log pi - log pi_ref of `ours`
    plain: WinRate
    controlled: WinRate  # at equal length

    @cached_property
    def equally_long(self) -> tuple[Ragged, Ragged]:
        """Both sides' responses as `text.equally_long` cuts them."""
        return text.equally_long(text.bodies(self.ours), text.bodies(self.theirs))


def compare(
    answers: Sequence[Rollout],
    judgement: Judgement,
    sides: Sequence[slice],
    kl: NDArray[np.float64],
    similarity: Sequence[NDArray[np.float64] | None] = (None, None),
) -> Compared:
    """The policy and the reference, of both of which responses and similarities are given in this order.

    `sides` are their columns in the judgement; `kl` as in `Compared`.
    """
    ours, theirs = answers
    length = np.concatenate([side.tokens.lengths.reshape(side.shape) for side in answers], axis=1).astype(np.float64)
    columns = np.concatenate([np.arange(judgement.preference.shape[1])[side] for side in sides])
    preference = judgement.preference[:, columns][:, :, columns]
    m = ours.shape[1]
    pair = slice(0, m), slice(m, 2 * m)
    return Compared(
        ours,
        theirs,
        policy=text.measured(ours, similarity[0]),
        reference=text.measured(theirs, similarity[1]),
        kl=kl,
        plain=win_rate(preference, *pair),
        controlled=length_control.win_rate(preference, length, *pair),
    )


def columns(seen: Compared) -> dict[str, float]:
    """Of `text.COLUMNS` those that were measured."""
    policy = seen.policy.figures()
    reference = {f"{name}{text.REFERENCE}": value for name, value in seen.reference.figures().items()}
    return {name: value for name, value in (policy | reference).items() if name in text.COLUMNS}


def warnings(seen: Compared, algorithm: BaseAlgorithm) -> str:
    """A sentence for each hint, and what to do; empty without any, and on fewer than `FEWEST` prompts."""
    if seen.ours.shape[0] < FEWEST:
        return ""
    found = [*_length(seen), *_repetition(seen), *_alike(seen), *_similarity(seen), *_drifted(seen), *_by_length(seen)]
    if not found:
        return ""
    beta = getattr(algorithm, "beta", None)
    hold = "" if beta is None else f", or raise algorithm.beta ({beta:g})"
    return " ".join([*found, f"See with `wind samples` whether the judge rewards that; if so, correct it{hold}."])


def _length(seen: Compared) -> Iterator[str]:
    ours, theirs = seen.policy.length, seen.reference.length
    times = ours.mean() / theirs.mean()
    if (times >= LONGER or times <= SHORTER) and _clear(ours.mean(1) - theirs.mean(1)):
        yield f"Responses have {ours.mean():.1f} tokens, {times:.2g} times as many as the reference's."
    ours, theirs = seen.policy.truncated, seen.reference.truncated
    if ours.mean() - theirs.mean() >= CUT_OFF and _clear(ours.mean(1) - theirs.mean(1)):
        yield f"The length limit cuts off {ours.mean():.0%} of the responses, {theirs.mean():.0%} of the reference's."


def _repetition(seen: Compared) -> Iterator[str]:
    """Loops, wherever they are; and fewer different words in texts of one length."""
    ours, theirs = seen.policy.repetition, seen.reference.repetition
    if ours.mean() - theirs.mean() >= REPEATS and _clear(ours.mean(1) - theirs.mean(1)):
        yield (
            f"Responses repeat themselves: {ours.mean():.0%} of their runs of {text.REPEATED} tokens stood in them "
            f"before, of the reference's {theirs.mean():.0%}."
        )
        return
    m = seen.ours.shape[1]
    falls = []
    for order in text.ORDERS:
        pair = np.stack([text.within(side, order) for side in seen.equally_long])
        differences = np.subtract(*pair).reshape(-1, m)
        known = differences[~np.isnan(differences).any(1)].mean(1)
        falls.append((order, text.mean(pair[0]), text.mean(pair[1]), _clear(known)))
    yield from _fell(falls, SAMENESS, "Responses repeat their words: distinct-{} within a response is")


def _alike(seen: Compared) -> Iterator[str]:
    m = seen.ours.shape[1]
    falls = []
    for order in text.ORDERS:
        (ours, own), (theirs, rival) = (text.across(side, order, m) for side in seen.equally_long)
        falls.append((order, ours, theirs, _clear(own - rival)))
    yield from _fell(falls, ALIKE, "Responses to different prompts are alike: distinct-{} over them is")


def _fell(falls: list[tuple[int, float, float, bool]], least: float, begin: str) -> Iterator[str]:
    """The furthest fall of distinct-n: its order, the policy's share, the reference's, and whether it is clear."""
    far = [(ours / theirs, order, ours, theirs) for order, ours, theirs, clear in falls if clear and theirs > 0]
    if far and min(far)[0] <= least:
        _, order, ours, theirs = min(far)
        yield f"{begin.format(order)} {ours:.2g}, the reference's {theirs:.2g} at equal length."


def _similarity(seen: Compared) -> Iterator[str]:
    ours, theirs = seen.policy.similarity, seen.reference.similarity
    if ours is None or theirs is None or not _clear(ours.mean(1) - theirs.mean(1)):
        return
    gain = ours.mean() - theirs.mean()
    told = f"their similarity to them is {ours.mean():.2f}, that of the reference's {theirs.mean():.2f}."
    if gain <= -OFF_TOPIC:
        yield f"Responses leave their prompts: {told}"
    elif gain >= COPIED:
        yield f"Responses resemble their prompts: {told}"


def _drifted(seen: Compared) -> Iterator[str]:
    """A response of a word or two may be unlearned as a whole: a shorter one counts as `SHORT` tokens."""
    drift = float(seen.kl.mean() / np.maximum(seen.policy.length, SHORT).mean())
    if drift >= DRIFTED and _clear(seen.kl.mean(1)):
        yield f"The policy is {drift:.2g} nats per token from the reference."


def _by_length(seen: Compared) -> Iterator[str]:
    plain, controlled = seen.plain, seen.controlled
    if plain.mean - controlled.mean >= BY_LENGTH and plain.low > controlled.high:
        yield (
            f"Length wins: the win rate of {plain.mean:.1%} is {controlled.mean:.1%} at equal length "
            f"({controlled.low:.1%} to {controlled.high:.1%})."
        )


def _clear(differences: NDArray[np.float64]) -> bool:
    """Whether the mean of differences, (prompts,), is further from 0 than chance would have it; not if one is NaN."""
    if len(differences) < FEWEST:
        return False
    _, low, high = interval(differences, SURE)
    return low > 0 or high < 0
