"""What a user's function says of a response: a score, alone or in a dict with named parts beside it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.errors import JudgeError
from components.config.schema import MOST_SHOWN, cut
from components.data.parts import ENDINGS

SCORE = "score"
LARGEST = 1e100  # of a score or part: sums and squares of larger ones leave the range of floats
_OF_LISTS = ("__len__", "__iter__")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Answer:
    """The score of one response, and its parts by name."""

    score: float
    parts: dict[str, float] = field(default_factory=dict)


def read_answer(value: Any, source: str) -> Answer:
    """What a function returned: a finite number, or a dict with one as `score` and a number or bool for each part.

    `source` says of which response and by which function. Raises JudgeError for anything else, and
    for numbers beyond LARGEST.
    """
    if not isinstance(value, Mapping):
        score = _number(value)
        if score is None:
            raise JudgeError(f"{source} returned {_shown(value)}. Make it return a finite number.")
        return Answer(_within(score, source))
    if SCORE not in value:
        raise JudgeError(
            f"{source} returned a dict without {SCORE!r}, which decides preferences; its names: "
            f"{_listed(value) or 'none'}. Add it, a finite number."
        )
    figures: dict[str, float] = {}
    for name, part in value.items():
        number = _number(part)
        if number is None:
            raise JudgeError(f"{source} returned {_shown(part)} as {_shown(name)}. Make it a finite number or a bool.")
        figures[name] = _within(number, f"{source}: {_shown(name)}")
    score = figures.pop(SCORE)
    for name in figures:
        _check_name(name, source)
    return Answer(score, figures)


def read_list(value: Any, count: int, source: str) -> list[Any]:
    """What a function returned for so many responses at once, one by one.

    Raises JudgeError for what is no list, tuple, array or tensor of that length.
    """
    ordered = not isinstance(value, str | bytes | Mapping | Set) and all(hasattr(value, n) for n in _OF_LISTS)
    if not ordered or getattr(value, "shape", None) == ():
        raise JudgeError(f"{source} returned {_shown(value)}. Make it return a list with a score for each response.")
    if len(value) != count:
        raise JudgeError(f"{source} returned {len(value)} scores for {count} responses. Return one for each, in order.")
    return list(value)


def require_same_parts(answer: Answer, first: Answer, source: str) -> None:
    """Raises JudgeError unless a response has the parts that the first response of the call has."""
    missing, extra = first.parts.keys() - answer.parts.keys(), answer.parts.keys() - first.parts.keys()
    if not missing and not extra:
        return
    found = [f"{word} {_listed(sorted(names))}" for word, names in (("lacks", missing), ("adds", extra)) if names]
    raise JudgeError(
        f"{source} returned other parts than for the first response: it {' and '.join(found)}. "
        "Return the same names for every response."
    )


def parts_of(answers: Sequence[Sequence[Answer]]) -> dict[str, NDArray[np.float64]]:
    """Each part of K responses to each of n prompts, all with the same names: (n, K)."""
    names = answers[0][0].parts if answers and answers[0] else {}
    return {
        name: np.array([[answer.parts[name] for answer in row] for row in answers], dtype=np.float64) for name in names
    }


def _number(value: Any) -> float | None:
    """As a float; None for what is no finite number.

    A tensor or an array without dimensions is the number that it holds.
    """
    if isinstance(value, np.timedelta64) or np.ma.is_masked(value):  # numpy counts them among its numbers
        return None
    try:
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, Real | Decimal):
            return None
        number = float(value)
    # A whole number or a fraction beyond what a float holds, a signalling NaN; a tensor without data on the device
    # `meta`; a type of the user's that breaks the rules of numbers.
    except (OverflowError, ValueError, RuntimeError, TypeError):
        return None
    return number if math.isfinite(number) else None


def _within(number: float, source: str) -> float:
    if abs(number) > LARGEST:
        raise JudgeError(f"{source} returned {number!r}. Make it a number from {-LARGEST:g} to {LARGEST:g}.")
    return number


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 1024:  # Python may refuse to write it out
        return f"a whole number of {value.bit_length()} bits, which no float holds"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "a generator, as a function that yields does"
    try:
        return cut(repr(value[: MOST_SHOWN + 1] if isinstance(value, str) else value))
    except ValueError:  # a whole number inside of it has more digits than Python writes
        return f"a value of type {type(value).__name__} that Python does not write out"


def _listed(names: Iterable[Any]) -> str:
    return cut(", ".join(map(_shown, islice(names, MOST_SHOWN))))


def _check_name(name: Any, source: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise JudgeError(
            f"{source} names a part {_shown(name)}. Use letters, digits and underscores, 100 at most, and no digit at "
            "the beginning."
        )
    if name.lower() == SCORE:
        raise JudgeError(f"{source} names a part {_shown(name)} beside {SCORE!r}. Give it a name of its own.")
    if name.endswith(ENDINGS):
        raise JudgeError(
            f"{source} names a part {_shown(name)}, and columns of `history` that end so hold intervals and the "
            "reference. Give it another name."
        )
