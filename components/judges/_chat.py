"""A chat model behind an OpenAI-compatible endpoint, asked by the official client."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from components.config import extras
from components.config.errors import JudgeError
from components.judges._base import filled
from components.judges._calls import awaited
from components.judges._client import Client
from components.judges._endpoint import REDIRECTED, BaseAddress, EndpointSettings
from components.judges._retry_after import wished

if TYPE_CHECKING:  # a config is read in steps that ask nobody
    import openai

MISSING = (
    f"judge.name: openai needs the package openai, which is not installed. Run {extras.install('openai')}, "
    "or use another judge."
)
OURS = ("model", "messages", "n", "stream", "temperature", "max_tokens", "logprobs", "top_logprobs")


@dataclass(frozen=True)
class Reply:
    """An answer of the model."""

    text: str
    finish: str  # why it ended: stop, length, content_filter …
    # each token of the text with the likeliest ones in its place, and their log-probs; empty if the endpoint gives none
    tokens: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    tokens_in: int | None = 0  # None: not told
    tokens_out: int | None = 0


@dataclass(frozen=True)
class Question:
    """One request. Its text is put together when it is sent: all pairs of 8 responses hold each of them 14 times."""

    template: str
    values: tuple[tuple[str, str], ...]  # by the names of their places
    where: str  # which responses it is about, for messages
    shown: int = 1  # how many

    @property
    def text(self) -> str:
        """What the model reads."""
        return filled(self.template, **dict(self.values))


class ChatSettings(EndpointSettings):
    """Which model of which endpoint, and how it is asked."""

    base_url: BaseAddress = Field("https://api.openai.com/v1", description="address of the endpoint, up to /v1")
    model: str = Field(min_length=1, description="the model's name at the endpoint")
    max_tokens: int | None = Field(16, ge=1, description="longest answer; null: not sent")
    temperature: float | None = Field(0.0, ge=0, le=2, description="of its answers; null: not sent")
    top_logprobs: int = Field(20, ge=0, le=20, description="likeliest tokens to ask for; 0: none, verdicts are hard")
    request: dict[str, Any] = Field(default_factory=dict, description="more fields of the request's body")

    def client(self) -> Client[openai.AsyncOpenAI]:
        """A client for all threads, to be left: it keeps its connections. Raises JudgeError if there is none."""
        try:
            import openai
        except ImportError as error:
            raise JudgeError(MISSING) from error
        from components.judges._bounded import BoundedClient

        made = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key() or "none",
            timeout=None,  # that of the client below counts
            max_retries=self.retries,
            http_client=BoundedClient(self.timeout, self.concurrency),
        )
        return Client(made, made.close)

    def ask(self, client: Client[openai.AsyncOpenAI], question: Question) -> Reply:
        """The answer to one question.

        The client repeats what the endpoint refuses as too many, what fails in it and what takes too long, after 0.5,
        1, 2, 4 and then 8 s each, or when the endpoint says (`Retry-After`).

        Raises:
            JudgeError: that did not help, the endpoint refuses, or what it says is no chat completion.
        """
        import openai

        from components.judges._bounded import UnreadableError

        where = question.where
        try:
            with client.used() as made:
                raw = awaited(made.chat.completions.with_raw_response.create(**self._body(question.text)))
            return _read(raw.text)
        except openai.APIStatusError as error:
            said = self.shown(error.response.text.strip() or error.response.reason_phrase)
            raise JudgeError(
                f"{where}: {self.base_url} answers with status {error.status_code}: {said}. "
                f"{self._remedy(error.status_code, wished(error.response.headers))}"
            ) from None
        except openai.APIConnectionError as error:  # a timeout is one
            raise self._away(where, error) from None
        except UnreadableError as error:
            what = self.shown(str(error), quoted=False)
            raise JudgeError(
                f"{where}: {self.base_url} answers with {what}, as no chat completion does. Correct judge.base_url."
            ) from None
        except ValidationError:
            raise JudgeError(
                f"{where}: what {self.base_url} answers is no chat completion: {self.shown(raw.text)}. Correct "
                "judge.base_url; it usually ends in /v1."
            ) from None

    def _away(self, where: str, error: openai.APIConnectionError) -> JudgeError:
        import openai

        from components.judges._bounded import reason

        late = isinstance(error, openai.APITimeoutError)
        what = f"gives no answer within judge.timeout, {self.timeout:g} s" if late else "cannot be reached"
        why = "" if late else f" ({self.shown(reason(error), quoted=False)})"
        return JudgeError(
            f"{where}: {self.base_url} {what}{why}, tried {self.retries + 1} times. See whether the server runs, "
            "correct judge.base_url, or raise judge.timeout or judge.retries."
        )

    def _body(self, text: str) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": text}]}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return {**body, "extra_body": self.request}

    def _remedy(self, status: int, wait: float | None) -> str:
        if status in (401, 403):
            return f"Give a key that it takes in the environment variable of judge.api_key_env ({self.api_key_env})."
        if status == 404:
            return f"Correct judge.model ({self.model}) or judge.base_url; it usually ends in /v1."
        if 300 <= status < 400:
            return f"{REDIRECTED} Correct judge.base_url."
        if busy := self.busy_remedy(status, wait):
            return busy
        return (
            "If it names a field of the request: judge.top_logprobs: 0, judge.max_tokens: null and judge.temperature: "
            "null leave theirs out, and judge.request adds others."
        )


PROBABLE = 1e-3  # a log-prob is 0 at most, but for its rounding
MOST_TOKENS = 10**12  # of one answer


class _Top(BaseModel):
    token: str
    logprob: float = Field(le=PROBABLE)


class _Token(_Top):
    top_logprobs: list[_Top] | None = None


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Used(BaseModel):
    # An endpoint that does not count says nothing, or null.
    prompt_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    completion_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)


class _Completion(BaseModel):
    """What is read of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Used | None = None


def _read(body: str) -> Reply:
    """The first choice of a chat completion. Raises ValidationError for what is none."""
    completion = _Completion.model_validate_json(body)
    choice, used = completion.choices[0], completion.usage or _Used()
    said = choice.logprobs.content if choice.logprobs else None
    return Reply(
        text=choice.message.content or choice.message.refusal or "",
        finish=choice.finish_reason or "",
        tokens=[(one.token, {top.token: top.logprob for top in one.top_logprobs or []}) for one in said or []],
        tokens_in=used.prompt_tokens,
        tokens_out=used.completion_tokens,
    )


def probability_of(tops: dict[str, float], word: str) -> float:
    """Of all likeliest tokens that are a word but for white space around it."""
    return sum(math.exp(logprob) for token, logprob in tops.items() if token.strip() == word)
