"""What may be set of the judge `openai`, and the prompts that it uses unless it has others."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator

from components.data.records import Prompt
from components.judges._base import conversation
from components.judges._chat import OURS, ChatSettings, Question
from components.judges._endpoint import Variable
from components.judges._scores import LARGEST
from components.judges._verdicts import AROUND, COLONS
from components.judges.llm_judge import DEFAULT_PROMPT

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
RANK_PROMPT = """\
An assistant has answered a prompt {count} times. Rank the responses: how correct and how helpful they are, and how \
true to what the prompt asks for. Neither their order nor their length counts.

# Prompt
{prompt}

{responses}

# Ranking
Answer with the numbers of all {count} responses, the best first, such as 2 > 1, and with nothing else."""
PLACES = {
    "pairs": ("prompt", "response_a", "response_b"),
    "scores": ("prompt", "response"),
    "ranks": ("prompt", "responses"),
}
DEAREST = 1e9  # of a million tokens, in any currency: what a run costs stays a number
Listing = tuple[int, tuple[int, ...]]  # a prompt, and some responses to it in the order in which they are shown


class OpenAISettings(ChatSettings):
    """What is asked for, and what its answers mean."""

    api_key_env: Variable | None = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; null: an endpoint that asks for none"
    )
    mode: Literal["pairs", "scores", "ranks"] = Field("pairs", description="what the model is asked for")
    prompt: str | None = Field(
        None,
        description="with {prompt}, {response_a} and {response_b}; of scores with {prompt} and {response}; "
        "of ranks with {prompt} and {responses}",
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
        description="share of answers that may be no verdict, score or ranking, and tie; more stop the run",
    )
    price_in: float | None = Field(None, ge=0, le=DEAREST, description="of a million tokens that the model reads")
    price_out: float | None = Field(None, ge=0, le=DEAREST, description="of a million tokens that it writes")

    @field_validator("verdicts")
    @classmethod
    def _can_be_told_apart(cls, value: list[str]) -> list[str]:
        if value[0] == value[1] or any(
            not word or set(word) & set(COLONS) or word != word.strip(AROUND).strip() for word in value
        ):
            raise ValueError(f"{value} cannot be read from an answer. Write two different words without marks around.")
        return value

    @field_validator("scale")
    @classmethod
    def _rises(cls, value: list[float]) -> list[float]:
        if not value[0] < value[1]:
            raise ValueError(f"{value} is no scale. Write the worst score, and then a greater one for the best.")
        if max(map(abs, value)) > LARGEST:
            raise ValueError(f"{value} leaves the range of scores. Use {-LARGEST:g} to {LARGEST:g}.")
        return value

    @field_validator("request")
    @classmethod
    def _can_be_sent(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(value.keys() & set(OURS)):
            remedy = f"Use judge.{ours[0]}." if ours[0] in cls.model_fields else "Leave it out."
            raise ValueError(f"{ours[0]!r} is set by the judge itself. {remedy}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:  # a date, or no finite number
            raise ValueError(
                f"cannot be sent as JSON ({error}). Use text, finite numbers, true, false, null."
            ) from error
        return value

    def about_pairs(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Sequence[tuple[int, int, int]]
    ) -> list[Question]:
        """One for each pair."""
        texts = [[_plain(text) for text in row] for row in responses]
        template, shown = self.prompt or DEFAULT_PROMPT, [_plain(conversation(prompt)) for prompt in prompts]
        return [
            Question(
                template,
                (("prompt", shown[i]), ("response_a", texts[i][a]), ("response_b", texts[i][b])),
                f"prompt {prompts[i].id!r}, responses {a} and {b}",
                shown=2,
            )
            for i, a, b in pairs
        ]

    def about_responses(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[Question]:
        """One for each response."""
        template, (low, high) = self.prompt or SCORE_PROMPT, (f"{end:g}" for end in self.scale)
        asked = []
        for prompt, row in zip(prompts, responses, strict=True):
            same = (("prompt", _plain(conversation(prompt))), ("low", low), ("high", high))
            for k, text in enumerate(row):
                values = (*same, ("response", _plain(text)))
                asked.append(Question(template, values, f"prompt {prompt.id!r}, response {k}"))
        return asked

    def about_listings(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], listings: Sequence[Listing]
    ) -> list[Question]:
        """One for each listing."""
        template, asked = self.prompt or RANK_PROMPT, []
        for i, shown in listings:
            parts = [f"# Response {place}\n{_plain(responses[i][k])}" for place, k in enumerate(shown, start=1)]
            values = (
                ("prompt", _plain(conversation(prompts[i]))),
                ("responses", "\n\n".join(parts)),
                ("count", str(len(shown))),
            )
            where = f"prompt {prompts[i].id!r}, responses {', '.join(map(str, shown))}"
            asked.append(Question(template, values, where, shown=len(shown)))
        return asked


def _plain(text: str) -> str:
    """Without marks of turns."""
    return TURNS.sub(" ", text)
