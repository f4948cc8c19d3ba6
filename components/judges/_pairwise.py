"""Judges that read two responses at once, in both orders: of all pairs, or of random opponents of each response."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from components.data.records import Prompt
from components.data.seeds import generator
from components.judges import Answers, Judge, Judgement, preference_from_pairs, refuse_ragged, with_pair_rate
from components.judges._orders import both_orders
from components.runtime.progress import Progress, silent

Pairs = Sequence[tuple[int, int, int]]  # (prompt, response shown first, response shown second)


@dataclass(frozen=True)
class FirstWins:
    """What a judge says of N ordered pairs."""

    probability: NDArray[np.float64]  # (N,), that the response shown first is better
    usage: Mapping[str, float] = field(default_factory=dict)  # as in Judgement


class PairwiseJudge(Judge):
    """A judge that reads two responses at once, in both orders, and gives no rewards."""

    opponents: PositiveInt | None = Field(
        None,
        description="each response to train on is compared with so many of the others, drawn at random; absent, or "
        "not fewer than there are: with all. Evaluation compares all",
    )

    @property
    def has_scores(self) -> bool:
        """None: only pairs are compared."""
        return False

    @property
    def draws_opponents(self) -> bool:
        """See `Judge.draws_opponents`."""
        return self.opponents is not None

    def model_inputs(self, n: int, k: int, policies: int = 1) -> int:
        """All ordered pairs, or those of opponents."""
        if not self._draws_of(k, policies):
            return n * k * (k - 1)
        assert self.opponents is not None
        return 2 * n * -(-k * self.opponents // 2)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Compares all ordered pairs of responses and averages both orders; see `Judge.judge`."""
        refuse_ragged(prompts, responses)
        k = len(responses[0])
        return self._of_pairs(prompts, responses, np.tile(~np.eye(k, dtype=bool), (len(prompts), 1, 1)), progress)

    def verdict(self, prompts: Sequence[Prompt], answers: Answers, progress: Progress = silent) -> Judgement:
        """See `Judge.verdict`; compares each response with `opponents` others if one policy gave them all."""
        k = answers.truncated.shape[1]
        if not self._draws_of(k, answers.policies):
            return super().verdict(prompts, answers, progress)
        assert self.opponents is not None
        texts = self.readable(answers)
        refuse_ragged(prompts, texts)
        chosen = np.array([drawn(prompt.id, k, self.opponents) for prompt in prompts])
        judgement = self.after_penalty(self._of_pairs(prompts, texts, chosen, progress), answers.truncated)
        return replace(judgement, preference=completed(judgement.preference, chosen))

    @abstractmethod
    def compare_pairs(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Pairs, progress: Progress = silent
    ) -> FirstWins:
        """Compares N ordered pairs. Raises JudgeError, with the prompt's id, for one that cannot be compared."""

    def _draws_of(self, k: int, policies: int) -> bool:
        return self.opponents is not None and self.opponents < k - 1 and policies == 1

    def _of_pairs(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str]],
        chosen: NDArray[np.bool_],
        progress: Progress,
    ) -> Judgement:
        """Both orders of some pairs, (n, K, K) symmetric; the others tie."""
        n, k = len(prompts), len(responses[0])
        preference = np.full((n, k, k), 0.5)
        nothing = np.full((n, k), np.nan)
        pairs = [(int(i), int(first), int(second)) for i, first, second in np.argwhere(chosen)]
        if not pairs:  # evaluation with one response of the reference alone
            return Judgement(preference, nothing)
        show = with_pair_rate(progress, n, k, pairs=len(pairs) // 2)
        found = self.compare_pairs(prompts, responses, pairs, show)
        preference[chosen] = found.probability
        averaged = preference_from_pairs(preference, [p.id for p in prompts])
        orders = {"judge": both_orders(preference, responses, chosen)}
        return Judgement(averaged, nothing, usage=found.usage, orders=orders)


def ordered_pairs(n: int, k: int) -> list[tuple[int, int, int]]:
    """(prompt, first response, second response), for all pairs of two different responses in both orders."""
    return [(i, first, second) for i in range(n) for first, second in permutations(range(k), 2)]


def drawn(prompt_id: str, k: int, m: int) -> NDArray[np.bool_]:
    """Which of the K responses to a prompt are compared, (K, K) symmetric: the same in all tasks."""
    return neighbours(generator("opponents", prompt_id).permutation(k), m)


def neighbours(order: NDArray[np.int64], m: int) -> NDArray[np.bool_]:
    """Pairs in which each of K responses has m others, (K, K) symmetric; where K·m is odd, one has m + 1.

    On a circle in this order they are the m/2 nearest on both sides and, for an odd m, the one opposite. In a random
    order each of the others is as likely to be among a response's opponents, wherever that stands: the mean over them
    is an unbiased estimate of the mean over all.

    Args:
        order: (K,), a permutation.
        m: below K - 1.
    """
    k = len(order)
    chosen = np.zeros((k, k), dtype=bool)
    for distance in range(1, m // 2 + 1):
        chosen[order, np.roll(order, distance)] = True
    if m % 2:
        near = np.arange((k + 1) // 2)
        chosen[order[near], order[near + k // 2]] = True
    either: NDArray[np.bool_] = chosen | chosen.T
    return either


def completed(preference: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Preferences with a value for pairs that nobody compared: each response's mean over those compared.

    So the leave-one-out win rate of a response is exactly that mean. Both are (n, K, K), and so is what is returned;
    there P + P^T = 1 holds for compared pairs only: two that won all they were compared in may both have 1.
    """
    mean = np.where(chosen, preference, 0.0).sum(-1, keepdims=True) / chosen.sum(-1, keepdims=True)
    known = chosen | np.eye(chosen.shape[-1], dtype=bool)
    return np.where(known, preference, mean)
