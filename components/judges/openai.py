"""Judge that asks a language model behind an OpenAI-compatible endpoint: for verdicts on pairs, scores or ranks.

With pairs it is `llm_judge` over HTTP (Zheng et al., arXiv 2306.05685), and both orders are averaged too. It differs in
that the model writes its verdict: where the endpoint gives log-probs, the preference is P("A") / (P("A") + P("B")) in
the place of that verdict, else 1 or 0. With ranks the model sees all K responses at once (Sun et al., arXiv
2304.09542), in two opposite orders that are averaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges import Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._base import PROBE, PROBE_RESPONSES, require_places
from components.judges._chat import Question, Reply
from components.judges._openai_settings import PLACES, Listing, OpenAISettings
from components.judges._orders import both_orders
from components.judges._pairwise import FirstWins, Pairs, PairwiseJudge, ordered_pairs
from components.judges._tally import Tally
from components.judges._truncated import shifted
from components.judges._verdicts import first_wins, ranking, score
from components.runtime.progress import Progress, silent

Found = TypeVar("Found")
logger = logging.getLogger(__name__)


# Settings that the other modes would leave aside without a word.
_OF_ONE_MODE = {"opponents": "pairs", "verdicts": "pairs", "scale": "scores", "score_temperature": "scores"}


class OpenAIJudge(PairwiseJudge, OpenAISettings):
    """Settings of the judge.

    Requests per prompt: with pairs K(K - 1), or with `opponents` m about K·m; with scores K; with ranks 2.
    """

    name: Literal["openai"] = "openai"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.prompt is not None:
            try:
                require_places(self.prompt, *PLACES[self.mode])
            except ValueError as error:
                raise ValueError(f"prompt: {error}") from error
        for name, mode in _OF_ONE_MODE.items():
            given = getattr(self, name)
            if self.mode != mode and given != type(self).model_fields[name].default:
                raise ValueError(f"{name}: {given} belongs to mode: {mode}, {self.mode} need none. Remove it.")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in: belongs together with price_out. Give both, or none.")
        return self

    @property
    def has_scores(self) -> bool:
        """Whether it is asked for some."""
        return self.mode == "scores"

    def model_inputs(self, n: int, k: int, policies: int = 1) -> int:
        """Requests."""
        if self.mode == "pairs":
            return super().model_inputs(n, k, policies)
        return n * k if self.mode == "scores" else 2 * n * (k > 1)

    def deciding(self) -> dict[str, Any]:
        """See `Judge.deciding`."""
        return self.model_dump(exclude={"api_key_env", "concurrency", "timeout", "retries", "price_in", "price_out"})

    def check(self) -> None:
        """Asks one question. Raises JudgeError unless the endpoint gives an answer that can be read."""
        if self.mode == "scores":
            self._answers(self.about_responses([PROBE], [PROBE_RESPONSES[0][:1]]), self._score, silent)
        else:
            self.compare_pairs([PROBE], PROBE_RESPONSES, ordered_pairs(1, 2)[:1])

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """See `Judge.judge`; a response whose score cannot be read ties with all others to its prompt.

        As reward it gets the mean of theirs, or the middle of the scale where none can be read.
        """
        if self.mode == "pairs":
            return super().judge(prompts, responses, progress)
        refuse_ragged(prompts, responses)
        show = with_pair_rate(progress, len(prompts), len(responses[0]))
        return (self._scored if self.mode == "scores" else self._ranked)(prompts, responses, show)

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """With scores as if the model had scored so much less, for the log-odds are differences of scores."""
        if self.mode != "scores":
            return super().lowered(judgement, penalty)
        preference = shifted(judgement.preference, penalty / self.score_temperature)
        return replace(judgement, preference=preference, reward=judgement.reward - penalty)

    def compare_pairs(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Pairs, progress: Progress = silent
    ) -> FirstWins:
        """See `PairwiseJudge.compare_pairs`; an answer that cannot be read is a tie."""
        if self.mode == "ranks":
            above, usage = self._above(prompts, responses, [(i, (a, b)) for i, a, b in pairs], progress)
            return FirstWins(np.array([one[0, 1] for one in above]), usage)
        asked = self.about_pairs(prompts, responses, pairs)
        wins, usage = self._answers(asked, lambda _, reply: first_wins(reply, self.verdicts), progress)
        return FirstWins(np.array([0.5 if win is None else win for win in wins]), usage)

    def _scored(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress) -> Judgement:
        found, usage = self._answers(self.about_responses(prompts, responses), self._score, progress)
        reward = np.array(found, dtype=np.float64).reshape(len(prompts), -1)
        unread = np.isnan(reward)
        known = np.where(unread, 0.0, reward).sum(1) / np.maximum((~unread).sum(1), 1)
        mean = np.where(unread.all(1), sum(self.scale) / 2, known)
        reward = np.where(unread, mean[:, None], reward)
        preference = preference_from_scores(reward, self.score_temperature)
        ties = unread[:, :, None] | unread[:, None, :]
        return Judgement(np.where(ties, 0.5, preference), reward, usage=usage)

    def _ranked(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress) -> Judgement:
        n, k = len(prompts), len(responses[0])
        preference, nothing = np.full((n, k, k), 0.5), np.full((n, k), np.nan)
        if k == 1:  # evaluation with one response of the reference alone
            return Judgement(preference, nothing)
        there, back = tuple(range(k)), tuple(reversed(range(k)))
        listings = [(i, shown) for i in range(n) for shown in (there, back)]
        above, usage = self._above(prompts, responses, listings, progress)
        first = preference.copy()  # the verdicts where y_i is shown before y_j
        for i in range(n):
            forth, reverse = above[2 * i], above[2 * i + 1][::-1, ::-1]
            preference[i] = (forth + reverse) / 2
            first[i] = np.triu(forth) + np.tril(reverse, -1)
        orders = {"judge": both_orders(first, responses, np.ones((n, k, k), dtype=bool))}
        return Judgement(preference, nothing, usage=usage, orders=orders)

    def _above(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Sequence[str]],
        listings: Sequence[Listing],
        progress: Progress,
    ) -> tuple[list[NDArray[np.float64]], dict[str, float]]:
        """Of each listing which place ranks above which, 1 or 0 and 1/2 for ties, (K, K); and what it took."""
        asked = self.about_listings(prompts, responses, listings)
        found, usage = self._answers(asked, lambda question, reply: ranking(reply, question.shown), progress)
        above = []
        for (_, shown), order in zip(listings, found, strict=True):
            ranks = np.zeros(len(shown)) if order is None else np.argsort(order)
            above.append((np.sign(ranks[None, :] - ranks[:, None]) + 1) / 2)
        return above, usage

    def _score(self, _: Question, reply: Reply) -> float | None:
        return score(reply, self.scale)

    def _answers(
        self, asked: Sequence[Question], read: Callable[[Question, Reply], Found | None], progress: Progress
    ) -> tuple[list[Found | None], dict[str, float]]:
        """What `read` finds in each answer, None for nothing; and what it took.

        Raises JudgeError for more of nothing than `max_unparsed`, as soon as that is certain.
        """
        tally = Tally(len({question.values for question in asked}))

        def ask(one: Sequence[Question]) -> list[Found | None]:
            (question,) = one
            reply = self.ask(client, question)
            value = read(question, reply)
            if tally.add(reply, unread=value is None) > self.max_unparsed and value is None:
                raise self._unreadable(question, reply, tally)
            return [value]

        def show(done: int, total: int) -> None:
            progress(done, total, **tally.figures(self.price_in, self.price_out))

        with self.client() as client:
            values = self.each_once(asked, lambda question: question.values, ask, show)
        usage = tally.figures(self.price_in, self.price_out)
        if not tally.counted:
            logger.warning(
                "judge openai: %s does not tell the tokens of each answer (`usage`), so they and the cost are unknown",
                self.base_url,
            )
        logger.info("judge openai: %s", ", ".join(f"{name} {value:g}" for name, value in usage.items()))
        return values, usage

    def _unreadable(self, question: Question, reply: Reply, tally: Tally) -> JudgeError:
        what = {
            "pairs": f"{self.verdicts[0]!r} or {self.verdicts[1]!r}",
            "scores": f"a number from {self.scale[0]:g} to {self.scale[1]:g}",
            "ranks": f"the numbers 1 to {question.shown} in an order",
        }[self.mode]
        odd = reply.finish not in ("", "stop")
        ended = f" and ends with finish_reason {self.shown(reply.finish, quoted=False)}" if odd else ""
        return JudgeError(
            f"judge.max_unparsed: {tally.unread} of {tally.total} answers are not {what}, more than the share of "
            f"{self.max_unparsed:g}. {question.where}: {self.model} says {self.shown(reply.text)}{ended}. Change "
            "judge.prompt, raise judge.max_tokens, turn its thinking off with judge.request, or raise "
            "judge.max_unparsed: such answers count as ties."
        )
