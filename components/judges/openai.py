"""Judge that asks a language model behind an OpenAI-compatible endpoint: which of two is better, or for a score.

With pairs it is `llm_judge` over HTTP (Zheng et al., arXiv 2306.05685), and both orders are averaged too. It differs in
that the model writes its verdict: where the endpoint gives log-probs, the preference is P("A") / (P("A") + P("B")) in
the place of that verdict, else 1 or 0.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges import Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._base import PROBE, PROBE_RESPONSES, conversation, filled, require_places
from components.judges._chat import OURS, ChatSettings, Question, Reply, Tally
from components.judges._endpoint import Variable
from components.judges._pairwise import FirstWins, Pairs, PairwiseJudge, ordered_pairs
from components.judges._truncated import shifted
from components.judges._verdicts import AROUND, first_wins, score
from components.judges.llm_judge import DEFAULT_PROMPT
from components.runtime.progress import Progress, silent

logger = logging.getLogger(__name__)

SCORE_PROMPT = """\
An assistant has answered a prompt. Score the response: how correct and how helpful it is, and how true to what the \
prompt asks for. Its length does not count.

# Prompt
{prompt}

# Response
{response}

# Score
Answer with a number from {low} (worst) to {high} (best) alone."""
# Marks of turns in common chat templates: a server reads them as such, and a response could continue in another's name.
TURNS = re.compile(r"<\|[^<>|\s]{1,60}\|>|</?(?:start|end)_of_turn>|\[/?INST\]|</?s>")


class OpenAIJudge(PairwiseJudge, ChatSettings):
    """Settings of the judge; K(K - 1) requests per prompt with pairs, with `opponents` m about K·m, K with scores."""

    name: Literal["openai"] = "openai"
    api_key_env: Variable | None = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; null: an endpoint that asks for none"
    )
    mode: Literal["pairs", "scores"] = Field("pairs", description="what the model is asked for")
    prompt: str | None = Field(
        None, description="with {prompt}, {response_a} and {response_b}; of scores with {prompt} and {response}"
    )
    verdicts: list[str] = Field(["A", "B"], min_length=2, max_length=2, description="answers for response a and for b")
    scale: list[float] = Field([1.0, 10.0], min_length=2, max_length=2, description="worst and best score")
    score_temperature: PositiveFloat = Field(
        1.0, description="of scores: P = sigmoid(difference of scores / score_temperature)"
    )
    max_unparsed: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of answers that may be neither verdict nor score, and tie; more stop the run",
    )
    price_in: NonNegativeFloat | None = Field(None, description="of a million tokens that the model reads")
    price_out: NonNegativeFloat | None = Field(None, description="of a million tokens that it writes")

    @field_validator("verdicts")
    @classmethod
    def _can_be_told_apart(cls, value: list[str]) -> list[str]:
        if value[0] == value[1] or any(not word or ":" in word or word != word.strip(AROUND) for word in value):
            raise ValueError(f"{value} cannot be read from an answer. Write two different words without marks around.")
        return value

    @field_validator("scale")
    @classmethod
    def _rises(cls, value: list[float]) -> list[float]:
        if not value[0] < value[1]:
            raise ValueError(f"{value} is no scale. Write the worst score, and then a greater one for the best.")
        return value

    @field_validator("request")
    @classmethod
    def _leaves_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(value.keys() & set(OURS)):
            remedy = f"Use judge.{ours[0]}." if ours[0] in cls.model_fields else "Leave it out."
            raise ValueError(f"{ours[0]!r} is set by the judge itself. {remedy}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.prompt is not None:
            places = ("prompt", "response_a", "response_b") if self.mode == "pairs" else ("prompt", "response")
            try:
                require_places(self.prompt, *places)
            except ValueError as error:
                raise ValueError(f"prompt: {error}") from error
        if self.mode == "scores" and self.opponents is not None:
            raise ValueError(f"opponents: {self.opponents} belongs to mode: pairs, scores need none. Remove it.")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in: belongs together with price_out. Give both, or none.")
        return self

    @property
    def has_scores(self) -> bool:
        """Whether it is asked for some."""
        return self.mode == "scores"

    def model_inputs(self, n: int, k: int, policies: int = 1) -> int:
        """Requests."""
        return n * k if self.mode == "scores" else super().model_inputs(n, k, policies)

    def deciding(self) -> dict[str, Any]:
        """See `Judge.deciding`."""
        return self.model_dump(exclude={"api_key_env", "concurrency", "timeout", "retries", "price_in", "price_out"})

    def check(self) -> None:
        """Asks one question. Raises JudgeError unless the endpoint gives an answer that can be read."""
        if self.mode == "scores":
            self._answers(self._about_responses([PROBE], [PROBE_RESPONSES[0][:1]]), self._score, silent)
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
        n, k = len(prompts), len(responses[0])
        asked = self._about_responses(prompts, responses)
        scores, usage = self._answers(asked, self._score, with_pair_rate(progress, n, k))
        reward = scores.reshape(n, k)
        unread = np.isnan(reward)
        known = np.where(unread, 0.0, reward).sum(1) / np.maximum((~unread).sum(1), 1)
        mean = np.where(unread.all(1), sum(self.scale) / 2, known)
        reward = np.where(unread, mean[:, None], reward)
        preference = preference_from_scores(reward, self.score_temperature)
        ties = unread[:, :, None] | unread[:, None, :]
        return Judgement(np.where(ties, 0.5, preference), reward, usage=usage)

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """With scores as if the model had scored so much less, for the log-odds are differences of scores."""
        if self.mode == "pairs":
            return super().lowered(judgement, penalty)
        preference = shifted(judgement.preference, penalty / self.score_temperature)
        return Judgement(preference, judgement.reward - penalty, judgement.parts, judgement.usage)

    def compare_pairs(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Pairs, progress: Progress = silent
    ) -> FirstWins:
        """See `PairwiseJudge.compare_pairs`; an answer that cannot be read is a tie."""
        shown = self._shown_texts(prompts, responses)
        asked = [
            Question(
                filled(
                    self.prompt or DEFAULT_PROMPT,
                    prompt=shown[0][i],
                    response_a=shown[1][i][first],
                    response_b=shown[1][i][second],
                ),
                f"prompt {prompts[i].id!r}, responses {first} and {second}",
            )
            for i, first, second in pairs
        ]
        wins, usage = self._answers(asked, lambda reply: first_wins(reply, self.verdicts), progress)
        return FirstWins(np.where(np.isnan(wins), 0.5, wins), usage)

    def _about_responses(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[Question]:
        shown, texts = self._shown_texts(prompts, responses)
        low, high = (f"{end:g}" for end in self.scale)
        return [
            Question(
                filled(self.prompt or SCORE_PROMPT, prompt=shown[i], response=text, low=low, high=high),
                f"prompt {prompts[i].id!r}, response {k}",
            )
            for i, row in enumerate(texts)
            for k, text in enumerate(row)
        ]

    @staticmethod
    def _shown_texts(
        prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
    ) -> tuple[list[str], list[list[str]]]:
        """Prompts and responses without marks of turns."""
        return (
            [TURNS.sub(" ", conversation(prompt)) for prompt in prompts],
            [[TURNS.sub(" ", text) for text in row] for row in responses],
        )

    def _score(self, reply: Reply) -> float | None:
        return score(reply, self.scale)

    def _answers(
        self, asked: Sequence[Question], read: Callable[[Reply], float | None], progress: Progress
    ) -> tuple[NDArray[np.float64], dict[str, float]]:
        """What `read` finds in each answer, (N,), NaN for nothing; and what it took.

        Raises JudgeError for more of nothing than `max_unparsed`, as soon as that is certain.
        """
        tally = Tally(len({question.text for question in asked}))

        def ask(one: Sequence[Question]) -> list[float]:
            (question,) = one
            reply = self.ask(question.text, question.where)
            value = read(reply)
            if tally.add(reply, unread=value is None) > self.max_unparsed and value is None:
                raise self._unreadable(question, reply, tally)
            return [np.nan if value is None else value]

        def show(done: int, total: int) -> None:
            progress(done, total, **tally.figures(self.price_in, self.price_out))

        values = self.each_once(asked, lambda question: question.text, ask, show)
        usage = tally.figures(self.price_in, self.price_out)
        logger.info("judge openai: %s", ", ".join(f"{name} {value:g}" for name, value in usage.items()))
        return np.array(values, dtype=np.float64), usage

    def _unreadable(self, question: Question, reply: Reply, tally: Tally) -> JudgeError:
        what = f"a number from {self.scale[0]:g} to {self.scale[1]:g}"
        if self.mode == "pairs":
            what = f"{self.verdicts[0]!r} or {self.verdicts[1]!r}"
        ended = f" and ends with finish_reason {reply.finish}" if reply.finish not in ("", "stop") else ""
        return JudgeError(
            f"judge.max_unparsed: {tally.unread} of {tally.total} answers are not {what}, more than the share of "
            f"{self.max_unparsed:g}. {question.where}: {self.model} says {self.shown(reply.text)}{ended}. Change "
            "judge.prompt, raise judge.max_tokens, turn its thinking off with judge.request, or raise "
            "judge.max_unparsed: such answers count as ties."
        )
