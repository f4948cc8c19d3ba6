"""Judge that asks a URL for scores: a reward model, or anything else, that runs elsewhere.

The contract, with a reference server in examples/reward_server: POST `{"prompts": [[{"role", "content"}, …], …],
"responses": ["…", …]}`, N of both, is answered with `{"scores": [N numbers]}`, and beside them with `"parts": {"name":
[N numbers], …}` if there are some.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from components.config import strict_json
from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges import Judge, Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._base import PROBE, PROBE_RESPONSES
from components.judges._calls import awaited
from components.judges._client import Client
from components.judges._endpoint import REDIRECTED, Address, EndpointSettings
from components.judges._post import RefusedError, post
from components.judges._scores import SCORE, Answer, parts_of, read_answer, read_list, require_same_parts
from components.judges._secrets import cleaned
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:  # a config is read in steps that ask nobody
    from components.judges._bounded import BoundedClient

Asked = tuple[Prompt, int, str]  # a prompt, the number of a response to it, and that response


class HttpJudge(EndpointSettings, Judge):
    """Settings of the judge; K scores per prompt."""

    name: Literal["http"] = "http"
    url: Address = Field(description="where prompts and responses are posted")
    batch_size: PositiveInt = Field(16, description="responses in a request, at most")
    temperature: PositiveFloat | None = Field(
        1.0, description="P = sigmoid(difference of scores / temperature); null: the higher score wins"
    )

    def deciding(self) -> dict[str, Any]:
        """See `Judge.deciding`."""
        return self.model_dump(exclude={"api_key_env", "concurrency", "timeout", "retries", "batch_size"})

    def check(self) -> None:
        """Asks for one score. Raises JudgeError unless the URL gives it."""
        self.judge([PROBE], [PROBE_RESPONSES[0][:1]])

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Scores each response, equal ones to equal messages once; see `Judge.judge`.

        Raises:
            JudgeError: rows of unequal length, a URL that does not answer or refuses, scores or parts that are no
                finite numbers or not as many as responses, or parts whose names differ from response to response.
        """
        refuse_ragged(prompts, responses)
        n, k = len(prompts), len(responses[0])
        asked = [(p, i, text) for p, row in zip(prompts, responses, strict=True) for i, text in enumerate(row)]
        show = with_pair_rate(progress, n, k)
        with self._client() as client:
            answers = self.each_once(asked, _same, partial(self._scores, client), show, size=self.batch_size)
        for one, answer in zip(asked, answers, strict=True):
            require_same_parts(answer, answers[0], self._source(one))
        rows = [answers[begin : begin + k] for begin in range(0, len(answers), k)]
        reward = np.array([[answer.score for answer in row] for row in rows], dtype=np.float64)
        return Judgement(preference_from_scores(reward, self.temperature), reward, parts_of(rows))

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """As if the URL had scored so much less."""
        reward = judgement.reward - penalty
        return replace(judgement, preference=preference_from_scores(reward, self.temperature), reward=reward)

    def _client(self) -> Client[BoundedClient]:
        from components.judges._bounded import BoundedClient

        client = BoundedClient(self.timeout, self.concurrency)
        return Client(client, client.aclose)

    def _source(self, asked: Asked) -> str:
        return f"{_where(asked)}: {self.url}"

    def _parsed(self, text: str, source: str) -> Any:
        try:
            return cleaned(self.key(), strict_json.loads(text))
        except strict_json.JsonError as error:
            why = self.shown(str(error), quoted=False)
            raise JudgeError(f"{source} answers {self.shown(text)}: {why}. {_CONTRACT}") from None

    def _scores(self, client: Client[BoundedClient], asked: Sequence[Asked]) -> list[Answer]:
        """What the URL says of some responses."""
        import httpx2

        from components.judges._bounded import UnreadableError, reason

        body = {
            "prompts": [list(prompt.messages) for prompt, _, _ in asked],
            "responses": [text for _, _, text in asked],
        }
        source = self._source(asked[0])
        try:
            with client.used() as open_client:
                text = awaited(post(open_client, self.url, body, key=self.key(), retries=self.retries))
            return self._read(self._parsed(text, source), asked, source)
        except RefusedError as error:
            raise JudgeError(
                f"{source} answers with status {error.status}: {self.shown(error.said)}. "
                f"{self._remedy(error.status, error.wait)}"
            ) from None
        except UnreadableError as error:
            raise JudgeError(f"{source} answers with {self.shown(str(error), quoted=False)}. {_CONTRACT}") from None
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            why = self.shown(reason(error), quoted=False)
            raise JudgeError(
                f"{source} gives no answer ({why}), tried {self.retries + 1} times. See whether the server "
                f"runs, correct judge.url, or raise judge.timeout ({self.timeout:g} s) or judge.retries."
            ) from None

    def _read(self, said: Any, asked: Sequence[Asked], source: str) -> list[Answer]:
        """Scores and parts of an answer's JSON."""
        parts = said.get("parts") or {} if isinstance(said, dict) else None
        if not isinstance(parts, dict) or "scores" not in said:
            raise JudgeError(f"{source} answers {self.shown(json.dumps(said))}. {_CONTRACT}")
        if SCORE in parts:
            raise JudgeError(f"{source} names a part {SCORE!r}, which means the score itself. Give it another name.")
        columns = {
            name: read_list(values, len(asked), source if name == SCORE else f"{source}: part {self.shown(name)}")
            for name, values in {SCORE: said["scores"], **parts}.items()
        }
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [read_answer(row, self._source(one)) for row, one in zip(rows, asked, strict=True)]

    def _remedy(self, status: int, wait: float | None) -> str:
        if status in (401, 403):
            return f"Name the environment variable of a key that it takes in judge.api_key_env ({self.api_key_env})."
        if status == 413:
            return f"Lower judge.batch_size ({self.batch_size})."
        if 300 <= status < 400:
            return f"{REDIRECTED} Correct judge.url."
        if busy := self.busy_remedy(status, wait):
            return busy
        return f"Correct judge.url. {_CONTRACT}"


_CONTRACT = 'It must take {"prompts": […], "responses": […]} and answer {"scores": […]}: docs/judges-over-http.md.'


def _same(asked: Asked) -> Hashable:
    return tuple((turn["role"], turn["content"]) for turn in asked[0].messages), asked[2]


def _where(asked: Asked) -> str:
    return f"prompt {asked[0].id!r}, response {asked[1]}"
