"""What a judge says of labelled pairs, and how far that agrees with the labels and with itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation.intervals import rate_interval
from components.judges import Answers, Judge
from components.judges._orders import same_winner, wins
from components.judges._pairwise import PairwiseJudge, ordered_pairs
from components.judging.pairs import LabelledPair
from components.runtime.progress import Progress, silent

AGREEMENT, LONGER_CHOSEN, SHORTER_CHOSEN = "agreement", "agreement_longer_chosen", "agreement_shorter_chosen"
CONSISTENCY, TIES, UNPARSED = "consistency", "ties", "unparsed"
PREFERS_LONGER, LABELS_LONGER, PREFERS_FIRST = "prefers_longer", "labels_prefer_longer", "prefers_first_shown"


@dataclass(frozen=True)
class Verdicts:
    """What a judge says of n pairs."""

    preference: NDArray[np.float64]  # (n,), P(chosen > rejected)
    # (m, 2), P(first shown wins) with the chosen and with the rejected one first, of those pairs whose texts differ as
    # the judge reads them; None of judges that see no orders
    orders: NDArray[np.float64] | None
    lengths: NDArray[np.int64]  # (n, 2), characters that the judge reads of chosen and rejected
    seconds: float  # for all
    usage: Mapping[str, float]  # as in Judgement


@dataclass(frozen=True)
class Rate:
    """A mean over pairs of values in [0, 1], with its 95 % interval; NaN over none."""

    value: float
    low: float
    high: float
    count: int  # of pairs; of `unparsed`, of answers


def ask(judge: Judge, pairs: Sequence[LabelledPair], progress: Progress = silent) -> Verdicts:
    """Asks a judge that has been checked. Raises JudgeError as its `judge` does; answers that are no verdicts tie."""
    if "max_unparsed" in type(judge).model_fields:  # they are counted here
        judge = judge.model_copy(update={"max_unparsed": 1.0})
    prompts = [pair.prompt for pair in pairs]
    whole = [[pair.chosen, pair.rejected] for pair in pairs]
    answers = Answers(whole, np.zeros((len(pairs), 2), dtype=bool), [""] * len(pairs))
    texts = judge.readable(answers)
    lengths = np.array([[len(text) for text in row] for row in texts], dtype=np.int64)
    begin = time.perf_counter()
    if isinstance(judge, PairwiseJudge) and not judge.has_scores:
        found = judge.compare_pairs(prompts, texts, ordered_pairs(len(pairs), 2), progress)
        orders = found.probability.reshape(-1, 2)
        preference = (orders[:, 0] + 1 - orders[:, 1]) / 2
        orders = orders[[first != second for first, second in texts]]
        return Verdicts(preference, orders, lengths, time.perf_counter() - begin, found.usage)
    judgement = judge.verdict(prompts, answers, progress)
    return Verdicts(judgement.preference[:, 0, 1], None, lengths, time.perf_counter() - begin, judgement.usage)


def measure(verdicts: Verdicts) -> dict[str, Rate]:
    """Rates by name; a tie counts one half of an agreement and of a preference.

    `agreement` is the share of pairs in which the judge prefers the chosen response, over all pairs and over those
    whose longer or shorter response is chosen. `prefers_longer` is the share in which it prefers the longer one, beside
    the share in which the labels do, of pairs that differ in length. Of judges that see both orders, `consistency` is
    the share in which both give the same winner, and `prefers_first_shown` that of the response shown first, over both.
    `unparsed` is the share of answers that are no verdicts, if the judge counts them.
    """
    won = wins(verdicts.preference)
    longer = np.sign(verdicts.lengths[:, 0] - verdicts.lengths[:, 1])  # 1: the chosen one
    differ = longer != 0
    rates = {
        AGREEMENT: rate(won),
        LONGER_CHOSEN: rate(won[longer > 0]),
        SHORTER_CHOSEN: rate(won[longer < 0]),
        TIES: rate((won == 0.5).astype(np.float64)),
        PREFERS_LONGER: rate(np.where(longer > 0, won, 1 - won)[differ]),
        LABELS_LONGER: rate((longer[differ] > 0).astype(np.float64)),
    }
    if verdicts.orders is not None:
        rates[CONSISTENCY] = rate(same_winner(verdicts.orders))
        rates[PREFERS_FIRST] = rate(wins(verdicts.orders).mean(1))
    if UNPARSED in verdicts.usage:
        asked = int(verdicts.usage["requests"])
        rates[UNPARSED] = Rate(verdicts.usage[UNPARSED] / asked, math.nan, math.nan, asked)
    return rates


def rate(values: NDArray[np.float64]) -> Rate:
    """Of (n,) values in [0, 1], one per pair."""
    if len(values) == 0:
        return Rate(math.nan, math.nan, math.nan, 0)
    return Rate(float(values.mean()), *rate_interval(values), len(values))
