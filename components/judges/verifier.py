"""Judge that calls a function of the user's on each response: exact answers, unit tests, any score."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from components.errors import JudgeError
from components.judges import Judge, Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._scores import Answer, parts_of, read_answer, require_same_parts
from components.progress import Progress, silent
from components.records import Prompt

Score = Callable[[str, Prompt], Any]


class Verifier(Judge):
    """Scores a response by `score(response, prompt)`, a number or a dict with `score` and parts; more is better."""

    name: Literal["verifier"] = "verifier"
    function: str = Field(description="'module:function' or 'path/to/file.py:function'")
    temperature: PositiveFloat | None = Field(
        None,
        description="Bradley-Terry: P = sigmoid(difference / temperature); absent: the higher score wins",
    )

    def check(self) -> None:
        """Imports the function. Raises JudgeError unless it can be called with a response and its prompt."""
        self._load()

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Scores each response; see `Judge.judge`.

        Raises:
            JudgeError: rows of unequal length, a score or a part that is not a finite number, or parts whose names
                are not those of the first response. What the function itself raises propagates, with a note that
                names the prompt and the response.
        """
        refuse_ragged(prompts, responses)
        function = self._load()
        progress = with_pair_rate(progress, len(prompts), len(responses[0]) if responses else 0)
        answers: list[list[Answer]] = []
        for index, (prompt, row) in enumerate(zip(prompts, responses, strict=True)):
            answers.append([])
            for k in range(len(row)):
                answer = self._answer(function, prompt, row, k)
                answers[-1].append(answer)
                require_same_parts(answer, answers[0][0], self._source(prompt, k))
            progress(index + 1, len(prompts))
        reward = np.array([[answer.score for answer in row] for row in answers], dtype=np.float64)
        return Judgement(preference_from_scores(reward, self.temperature), reward, parts_of(answers))

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """As if the function had scored so much less."""
        reward = judgement.reward - penalty
        return replace(judgement, preference=preference_from_scores(reward, self.temperature), reward=reward)

    def _source(self, prompt: Prompt, k: int) -> str:
        return f"prompt {prompt.id!r}, response {k}: {self.function}"

    def _answer(self, function: Score, prompt: Prompt, row: Sequence[str], k: int) -> Answer:
        try:
            value = function(row[k], prompt)
        except Exception as error:  # only annotated: a fault of the function keeps its own type and traceback
            error.add_note(f"prompt {prompt.id!r}, response {k}: raised by {self.function}, called as judge.function.")
            raise
        return read_answer(value, self._source(prompt, k))

    def _load(self) -> Score:
        place, _, attribute = self.function.rpartition(":")
        is_file = place.endswith(".py")
        if not attribute.isidentifier() or not (is_file or all(p.isidentifier() for p in place.split("."))):
            raise JudgeError(
                f"judge.function: {self.function!r} has the wrong form. "
                "Write 'module:function' or 'path/to/file.py:function'."
            )
        module = _import_file(Path(place).expanduser()) if is_file else _import_module(place)
        if not hasattr(module, attribute):
            raise JudgeError(f"judge.function: {place} has no {attribute!r}. Define it there, or correct the name.")
        function: Score = getattr(module, attribute)
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise JudgeError(
                f"judge.function: {self.function} is not a plain function. Define it as score(response, prompt)."
            )
        try:
            inspect.signature(function).bind("", None)
        except (TypeError, ValueError) as error:
            raise JudgeError(
                f"judge.function: {self.function} cannot be called with two arguments ({error}). "
                "Define it as score(response, prompt)."
            ) from error
        return function


def _import_module(name: str) -> ModuleType:
    # Scripts have their own directory on the path, not the one they are started from.
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise JudgeError(
            f"judge.function: there is no module {error.name!r} in the working directory ({Path.cwd()}) or "
            "among the installed packages. Correct the name, or write 'path/to/file.py:function'."
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise JudgeError(f"judge.function: there is no file {path.absolute()}. Correct the path.")
    # A name of its own: `math.py` must not stand in for the standard module.
    name = f"verifier_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path.resolve())
    sys.modules[name] = module  # dataclasses look their module up while it runs
    try:
        SourceFileLoader(name, module.__file__).exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
