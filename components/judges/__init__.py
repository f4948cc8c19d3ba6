"""Judges: each one module that turns responses into preferences, found by its name in the config."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.config.errors import JudgeError
from components.config.schema import Section
from components.data.records import Prompt
from components.judges._thinking import ThinkingMarks, cut
from components.judges._truncated import LOSE, TruncatedPenalty, lost, shifted
from components.runtime.progress import Progress, silent


@dataclass(frozen=True)
class Judgement:
    """What a judge says of K responses to each of n prompts."""

    # (n, K, K), P(y_i > y_j) in [0, 1]; ties and diagonal 1/2; P + P^T = 1. For pairs that `opponents` left out,
    # P_ij is the mean of y_i over those that it was compared with, so that `leave_one_out` gives just that mean.
    preference: NDArray[np.float64]
    reward: NDArray[np.float64]  # (n, K), scores behind the preference; NaN where pairs are compared
    # each (n, K), finite: what else the judge says of a response, by name; it decides nothing
    parts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    usage: Mapping[str, float] = field(
        default_factory=dict
    )  # what it took, of judges behind a URL: `_chat.Tally.figures`
    # by the judge's place in the config, as `judge` or `judge.judges.0`: each (P, 2), see `_orders.both_orders`
    orders: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """K responses to each of n prompts, as policies gave them."""

    texts: Sequence[Sequence[str]]  # n rows of K
    truncated: NDArray[np.bool_]  # (n, K), cut off by the length limit
    prompt_ends: Sequence[str]  # n, how the texts end that the policies read
    policies: int = 1  # how many gave them; of several, each response is compared with those of all


class Judge(Section, ABC):
    """Settings of a judge, and its verdict."""

    name: str
    cut_thinking: ThinkingMarks = Field(
        None, description="true: the judge reads no text between <think> and </think>; or two marks of your own"
    )
    truncated_penalty: TruncatedPenalty = Field(
        0.0,
        description="of responses that max_new_tokens cut off: subtracted from scores, where pairs are compared from "
        "log-odds; lose: they lose all pairs with others",
    )

    @property
    def has_scores(self) -> bool:
        """Whether it gives rewards."""
        return True

    @property
    def scores_what_loses(self) -> bool:
        """Whether it gives responses rewards which do not tell that they lose all pairs for their length."""
        return self.truncated_penalty == LOSE and self.has_scores

    def marks(self) -> set[str]:
        """The marks of what it does not read."""
        return set(self.cut_thinking or ())

    @property
    def draws_opponents(self) -> bool:
        """Whether it compares some pairs of one policy's responses only."""
        return False

    @property
    def members(self) -> Sequence[Judge]:
        """Itself, or the judges that an ensemble is made of."""
        return [self]

    @property
    def gpus(self) -> int:
        """How many GPUs it spreads a model over."""
        return 1

    @property
    def starts_anew(self) -> bool:
        """Whether each call starts a process that loads the model, which takes a minute."""
        return False

    def model_inputs(self, n: int, k: int, policies: int = 1) -> int:  # noqa: ARG002 - of judges that draw opponents
        """The cost of judging K responses of so many policies to each of n prompts: texts that it reads, at most."""
        return n * k

    @abstractmethod
    def check(self) -> None:
        """Loads what the judge needs. Raises JudgeError when something is missing."""

    def deciding(self) -> dict[str, Any]:
        """The settings that its verdicts follow from; all but those of speed. Runs that continue keep them."""
        return self.model_dump()

    def load(self) -> None:
        """Loads models that stay loaded, for whoever wants to know how long that takes: judging would load them."""
        if not any(member.starts_anew for member in self.members):  # before that, others are unloaded
            for member in self.members:
                if member is not self:
                    member.load()

    def unload(self) -> None:
        """Frees the memory of what is loaded, for those who need it meanwhile. Judging loads it again."""

    @abstractmethod
    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Compares the K responses of each prompt; `responses` is n rows of K texts.

        `progress` is also told `pairs_per_second`; see `with_pair_rate`.

        Raises JudgeError for rows of unequal length and, with the prompt's id, for a verdict that cannot be used.
        """

    def verdict(self, prompts: Sequence[Prompt], answers: Answers, progress: Progress = silent) -> Judgement:
        """`judge` of what the settings leave of the responses, with the penalty of truncated ones."""
        return self.after_penalty(self.judge(prompts, self.readable(answers), progress), answers.truncated)

    def readable(self, answers: Answers) -> Sequence[Sequence[str]]:
        """The texts without thinking if that is to be cut."""
        if self.cut_thinking is None:
            return answers.texts
        opening, closing = self.cut_thinking
        return [
            [cut(text, opening, closing, prompt_end=prompt_end) for text in row]
            for row, prompt_end in zip(answers.texts, answers.prompt_ends, strict=True)
        ]

    def after_penalty(self, judgement: Judgement, truncated: NDArray[np.bool_]) -> Judgement:
        """A judgement with what `truncated_penalty` says of truncated responses, (n, K)."""
        if self.truncated_penalty == LOSE:
            return replace(judgement, preference=lost(judgement.preference, truncated))
        penalty = np.where(truncated, np.float64(self.truncated_penalty), 0.0)
        return self.lowered(judgement, penalty) if penalty.any() else judgement

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """A judgement of scores that are lower by a penalty, (n, K), or log-odds of pairs that are."""
        preference = shifted(judgement.preference, penalty)
        return replace(judgement, preference=preference, reward=judgement.reward - penalty)


def refuse_ragged(prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> None:
    """Raises JudgeError unless there is one row of responses per prompt, and all are of one length."""
    if len(prompts) != len(responses):
        raise JudgeError(f"{len(responses)} rows of responses for {len(prompts)} prompts. Give one row per prompt.")
    for prompt, row in zip(prompts, responses, strict=True):
        if len(row) != len(responses[0]):
            raise JudgeError(
                f"prompt {prompt.id!r}: {len(row)} responses where the first prompt has {len(responses[0])}. "
                "Give each prompt the same number."
            )


def with_pair_rate(progress: Progress, n: int, k: int, *, pairs: int | None = None) -> Progress:
    """Progress that also shows `pairs_per_second`.

    A pair is two responses to one prompt, in whichever order and however many inputs it took to compare them: a unit
    that all judges have in common. Counted from now on; `pairs` if they are not all that there are.
    """
    compared = n * k * (k - 1) / 2 if pairs is None else pairs
    begin = time.perf_counter()

    def show(done: int, total: int, **figures: float) -> None:
        seconds = max(time.perf_counter() - begin, 1e-9)
        progress(done, total, pairs_per_second=compared * done / total / seconds, **figures)

    return show


def summed(usages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """What several judgements took, each as `Judgement.usage`; judges that count nothing add nothing.

    A figure that not all others give, such as the cost where a judge has no prices, is left out: it would be too small.
    """
    counted = [usage for usage in usages if usage]
    names = set.intersection(*(set(usage) for usage in counted)) if counted else set()
    return {name: sum(usage[name] for usage in counted) for usage in counted[:1] for name in usage if name in names}


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) of any size without overflow."""
    chances: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits))
    return chances


def preference_from_scores(scores: NDArray[np.float64], temperature: float | None = None) -> NDArray[np.float64]:
    """Preferences that follow a score.

    Args:
        scores: (n, K), finite.
        temperature: None: the higher score wins, equal scores tie at 1/2. A positive number: the
            Bradley-Terry model, P(y_i > y_j) = sigmoid((s_i - s_j) / temperature).

    Returns:
        (n, K, K), P(y_i > y_j).
    """
    with np.errstate(over="ignore"):  # an infinite difference decides as well
        margin = scores[:, :, None] - scores[:, None, :]
    if temperature is None:
        return (np.sign(margin) + 1) / 2
    return sigmoid(margin / temperature)


def preference_from_pairs(pairs: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.float64]:
    """Preferences of a judge that sees ordered pairs: both orders averaged, the diagonal set to 1/2.

    Args:
        pairs: (n, K, K), entry [i, j] the judge's probability that the first shown, y_i, beats y_j.
        prompt_ids: n, for the error message.

    Returns:
        (n, K, K) with P + P^T = 1.

    Raises:
        JudgeError: a value outside [0, 1] or not finite.
    """
    off_diagonal = ~np.eye(pairs.shape[-1], dtype=bool)
    bad = ~((pairs >= 0) & (pairs <= 1)) & off_diagonal
    for index in np.flatnonzero(bad.any((-2, -1)))[:1]:
        raise JudgeError(f"prompt {prompt_ids[index]!r}: the judge gave a preference that is not in [0, 1].")
    averaged = (pairs + 1 - pairs.swapaxes(-1, -2)) / 2
    return np.where(off_diagonal, averaged, 0.5)
