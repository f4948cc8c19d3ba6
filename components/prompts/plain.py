"""Values as JSON keeps them, so that a judge sees the same in `start` as in the steps that read prompts back."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from components.config.errors import PromptError

ESCAPED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not UTF-8

_KEPT = (str, bool, int, type(None))
# What becomes of values of these types and of those derived from them, by the first that fits.
_SCALARS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    ((int, np.integer), int),
    (np.bool_, bool),
    ((float, np.floating), float),
    ((datetime.date, datetime.time), lambda value: value.isoformat()),  # a datetime is a date
    ((decimal.Decimal, np.datetime64, uuid.UUID), str),
)


def plain(value: Any, column: str) -> Any:
    """The value in the types that it has when it is read back from JSON.

    Dates and times become ISO 8601 text, decimals and UUIDs their text, tuples and arrays lists, and numpy's scalars
    and other numbers or text of a derived type plain ones. Text, integers, floats, booleans, None, lists and mappings
    stay what they are.

    Raises PromptError, with place (`scores[2]` in the column `scores`) and remedy, for what JSON cannot hold: NaN and
    infinities, bytes, sets, mappings with keys that are no text, objects of any other type.
    """
    return value if _is_plain(value) else _plain(value, column, column)


def _is_plain(value: Any) -> bool:
    """Whether nothing is to be done, as for nearly all values."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(_is_plain, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return kind in _KEPT


def _plain(value: Any, place: str, column: str) -> Any:
    if type(value) in _KEPT:
        return value
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return [_plain(item, f"{place}[{index}]", column) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_key(key, place, column): _plain(item, f"{place}.{key}", column) for key, item in value.items()}
    return _scalar(value, place, column)


def _scalar(value: Any, place: str, column: str) -> Any:
    convert = next((convert for kinds, convert in _SCALARS if isinstance(value, kinds)), None)
    if convert is None or isinstance(value, np.timedelta64):  # which is a kind of np.integer
        raise PromptError(
            f"{place}: is of type {type(value).__name__}, which JSON cannot hold. "
            f"Write text or a number, {_out(column)}."
        )
    found = convert(value)
    if _no_number(value, found):
        raise PromptError(f"{place}: is {value}, not a number, which JSON cannot hold. Correct it, {_out(column)}.")
    return found


def _no_number(value: Any, found: Any) -> bool:
    if isinstance(value, decimal.Decimal):
        return not value.is_finite()
    infinite = isinstance(found, float) and not math.isfinite(found)
    return infinite or (found == "NaT" and not isinstance(value, str))  # a date that is none


def _key(key: Any, place: str, column: str) -> str:
    if not isinstance(key, str):
        raise PromptError(
            f"{place}: has the key {key!r} of type {type(key).__name__}, and a key in JSON is text. "
            f"Write its keys as text, {_out(column)}."
        )
    return str.__str__(key)


def _out(column: str) -> str:
    """The remedy that works without another data set."""
    return f"or let prompts.leave_out leave `{column}` out"
