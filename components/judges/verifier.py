"""Judge that calls a function of the user's on each response: exact answers, unit tests, any score."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from components.config.errors import JudgeError
from components.config.paths import user_path
from components.data.records import Prompt
from components.judges import Judge, Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._calls import HEARTBEAT, awaited, in_order
from components.judges._functions import load, path_note
from components.judges._scores import Answer, parts_of, read_answer, read_list, require_same_parts
from components.judges._surroundings import unchanged
from components.runtime.progress import Progress, silent

Asked = tuple[Prompt, int, str]  # a prompt, the number of a response to it, and that response


class Verifier(Judge):
    """Scores a response by `score(response, prompt)`, a number or a dict with `score` and parts; more is better.

    The function may be async: it is awaited. Its prompts are copies, for it to change as it likes.
    """

    name: Literal["verifier"] = "verifier"
    function: str = Field(description="'module:function' or 'path/to/file.py:function'")
    temperature: PositiveFloat | None = Field(
        None,
        description="Bradley-Terry: P = sigmoid(difference / temperature); absent: the higher score wins",
    )
    workers: int = Field(
        1, ge=1, le=1024, description="calls at a time, each in a thread of its own if there are several"
    )
    batch_size: PositiveInt | None = Field(
        None,
        description="the function is called with lists, of so many responses at most and of their prompts, and "
        "returns a list; absent: with one response",
    )
    timeout: float | None = Field(None, gt=0, le=1e6, description="seconds that a call may take; absent: any time")
    files: list[str] = Field([], description="files and folders that the function reads, for pods to have them too")

    def deciding(self) -> dict[str, Any]:
        """See `Judge.deciding`."""
        return self.model_dump(exclude={"workers", "timeout", "files"})

    def check(self) -> None:
        """Imports the function. Raises JudgeError unless it can be called as `judge` calls it."""
        for name in self.files:
            path = user_path(name, "judge.files", JudgeError)
            if not path.exists():
                raise JudgeError(f"judge.files: there is no {path.absolute()}. Correct the path.")
        self._load()

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Scores each response; see `Judge.judge`. Calls begin in order, and of several errors the earliest counts.

        Raises:
            JudgeError: rows of unequal length, a score or a part that is not a finite number, parts whose names
                are not those of the first response, a call of sys.exit, or one that took longer than `timeout`. What
                the function itself raises propagates, with a note that names the prompt and the response.
        """
        refuse_ragged(prompts, responses)
        function, k = self._load(), len(responses[0]) if responses else 0
        asked = [(p, i, text) for p, row in zip(prompts, responses, strict=True) for i, text in enumerate(row)]
        size = self.batch_size or 1
        calls = [asked[begin : begin + size] for begin in range(0, len(asked), size)]
        show = _by_prompt(with_pair_rate(progress, len(prompts), k), len(prompts), k)
        with unchanged():  # a function that goes elsewhere does not take the step along
            first = self._in_order(function, calls[:1], lambda done: show(done * size))
            same_as = first[0] if first else None
            rest = self._in_order(function, calls[1:], lambda done: show((done + 1) * size), same_as)
        answers = [*first, *rest]
        rows = [answers[begin : begin + k] for begin in range(0, len(answers), k or 1)]
        reward = np.array([[answer.score for answer in row] for row in rows], dtype=np.float64)
        return Judgement(preference_from_scores(reward, self.temperature), reward, parts_of(rows))

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """As if the function had scored so much less."""
        reward = judgement.reward - penalty
        return replace(judgement, preference=preference_from_scores(reward, self.temperature), reward=reward)

    def _in_order(
        self,
        function: Callable[..., Any],
        calls: Sequence[Sequence[Asked]],
        done: Callable[[int], None],
        first: Answer | None = None,
    ) -> list[Answer]:
        """The answers of some calls; all have the parts of `first`, or of their own first one."""
        found = in_order(
            lambda index: self._call(function, calls[index], first),
            len(calls),
            workers=self.workers,
            seconds=self.timeout,
            late=lambda index: JudgeError(
                f"{_where(calls[index])}: {self.function} took longer than judge.timeout, {self.timeout:g} s. "
                "Make it end sooner, or raise that."
            ),
            done=done,
        )
        return [answer for answers in found for answer in answers]

    def _call(self, function: Callable[..., Any], asked: Sequence[Asked], first: Answer | None) -> list[Answer]:
        where = _where(asked)
        if self.batch_size is None:
            arguments: tuple[Any, Any] = asked[0][2], asked[0][0].copy()
        else:
            arguments = [text for _, _, text in asked], [prompt.copy() for prompt, _, _ in asked]
        with self._told(where):
            result = function(*arguments)
            if inspect.isawaitable(result):
                result = awaited(result)
        with self._told(where, JudgeError):
            single = self.batch_size is None
            values = [result] if single else read_list(result, len(asked), f"{where}: {self.function}")
            return self._read(values, asked, first)

    @contextmanager
    def _told(self, where: str, *ours: type[Exception]) -> Iterator[None]:
        """Says of what the function raises which responses it was about; `ours` say so themselves."""
        try:
            yield
        except ours:
            raise
        except SystemExit as error:
            raise JudgeError(
                f"{where}: {self.function} called sys.exit({error.code!r}). Make it return a score, or raise an error."
            ) from error
        except BaseException as error:  # only annotated: a fault of the function keeps its own type and traceback
            error.add_note(f"{where}: raised by {self.function}, called as judge.function.")
            path_note(error)
            raise

    def _read(self, values: Sequence[Any], asked: Sequence[Asked], first: Answer | None) -> list[Answer]:
        answers = []
        for value, one in zip(values, asked, strict=True):
            source = f"{_where([one])}: {self.function}"
            answers.append(read_answer(value, source))
            require_same_parts(answers[-1], first or answers[0], source)
        return answers

    def _load(self) -> Callable[..., Any]:
        many = self.batch_size is not None
        with unchanged():
            return load(self.function, "score(responses, prompts)" if many else "score(response, prompt)")


def _where(asked: Sequence[Asked]) -> str:
    places = [f"prompt {prompt.id!r}, response {k}" for prompt, k, _ in (asked[0], asked[-1])]
    return places[0] if len(asked) == 1 else " to ".join(places)


def _by_prompt(progress: Progress, prompts: int, k: int) -> Callable[[int], None]:
    """Told how many responses are judged, shows how many prompts; between two prompts, that it continues."""
    shown, at = 0, time.monotonic()

    def show(responses: int) -> None:
        nonlocal shown, at
        done, now = min(responses // max(k, 1), prompts), time.monotonic()
        if done > shown:
            progress(done, prompts)
        elif now - at >= HEARTBEAT and done < prompts:
            progress(done, prompts, responses=min(responses, prompts * k))
        else:
            return
        shown, at = done, now

    return show
