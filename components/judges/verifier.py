"""Judge that calls a function of the user's on each response: exact answers, unit tests, any score."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from components.config.errors import JudgeError
from components.config.paths import LocalPath, user_path
from components.data.records import Prompt
from components.judges import Judge, Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._calls import HEARTBEAT, awaited, in_order
from components.judges._functions import load, path_note
from components.judges._scores import Answer, read_answer, read_list, require_same_parts
from components.judges._surroundings import unchanged
from components.runtime.progress import Progress, silent

Asked = tuple[Prompt, int, str]  # a prompt, the number of a response to it, and that response


@dataclass(frozen=True)
class _Calls:
    """What each call is asked: of `size` responses, the last of fewer. Made when it is called, for none to wait."""

    prompts: Sequence[Prompt]
    texts: Sequence[Sequence[str]]
    size: int

    @property
    def k(self) -> int:
        """Responses to each prompt."""
        return len(self.texts[0]) if self.texts else 0

    @property
    def responses(self) -> int:
        """All."""
        return len(self.prompts) * self.k

    def __len__(self) -> int:
        return (self.responses + self.size - 1) // self.size

    def __getitem__(self, call: int) -> list[Asked]:
        places = range(call * self.size, min((call + 1) * self.size, self.responses))
        return [(self.prompts[i], j, self.texts[i][j]) for i, j in (divmod(place, self.k) for place in places)]


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
    files: list[LocalPath] = Field(
        [], description="files and folders that the function reads, for pods to have them too"
    )

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
        calls, function = _Calls(prompts, responses, self.batch_size or 1), self._load()
        n, k = len(prompts), calls.k
        show = _by_prompt(with_pair_rate(progress, n, k), n, k)
        with unchanged():  # a function that goes elsewhere does not take the step along
            names, table = self._table(function, calls, show)
        reward, *parts = (np.ascontiguousarray(column).reshape(n, k) for column in table.T)
        return Judgement(preference_from_scores(reward, self.temperature), reward, dict(zip(names, parts, strict=True)))

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """As if the function had scored so much less."""
        reward = judgement.reward - penalty
        return replace(judgement, preference=preference_from_scores(reward, self.temperature), reward=reward)

    def _table(
        self, function: Callable[..., Any], calls: _Calls, show: Callable[[int], None]
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Names of the parts, and of each response the score and the parts, (n·K, 1 + parts).

        Numbers in an array: Python's collector passes over objects, the more of them there are the longer.
        """
        first: list[Answer] = []
        self._in_order(function, calls, range(min(len(calls), 1)), lambda _, found: first.extend(found), show)
        names = list(first[0].parts) if first else []
        table = np.empty((calls.responses, 1 + len(names)))

        def fill(call: int, found: Sequence[Answer]) -> None:
            rows = [[answer.score, *(answer.parts[name] for name in names)] for answer in found]
            table[call * calls.size : call * calls.size + len(rows)] = rows

        if first:
            fill(0, first)
            self._in_order(function, calls, range(1, len(calls)), fill, show, first[0])
        return names, table

    def _in_order(
        self,
        function: Callable[..., Any],
        calls: _Calls,
        chosen: range,
        keep: Callable[[int, list[Answer]], None],
        show: Callable[[int], None],
        first: Answer | None = None,
    ) -> None:
        """Has the answers of the chosen calls kept; all have the parts of `first`, or of their own first one."""
        in_order(
            lambda index: keep(chosen[index], self._call(function, calls[chosen[index]], first)),
            len(chosen),
            workers=self.workers,
            seconds=self.timeout,
            late=lambda index: JudgeError(
                f"{_where(calls[chosen[index]])}: {self.function} took longer than judge.timeout, {self.timeout:g} s. "
                "Make it end sooner, or raise that."
            ),
            done=lambda done: show((chosen.start + done) * calls.size),
        )

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
