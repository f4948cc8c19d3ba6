"""JSON as it is meant: of a key that stands twice in one object neither is dropped, and no text ends in a traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
_NAME = re.compile(r"\s*:")  # what follows a key


class JsonError(ValueError):
    """Text that is not JSON, or that says something twice; the message names the key and the line."""


class _TwiceError(ValueError):
    """An object with a key that stands twice."""


def loads(text: str | bytes, *, unique: bool = True) -> Any:
    """The value that a JSON text holds; bytes are UTF-8, with or without a byte order mark.

    Raises JsonError for a key that stands twice in one object, if they must be `unique`, numbers of thousands of
    digits, nesting that cannot be followed, and what is no JSON.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return json.loads(text, object_pairs_hook=_object if unique else None)
    except UnicodeDecodeError as error:
        raise JsonError(f"it is not UTF-8 text: byte {error.start} cannot be read") from error
    except json.JSONDecodeError as error:
        raise JsonError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply to be read") from error
    except _TwiceError as error:
        key, line = _second(str(text))
        raise JsonError(f"line {line}: the key {key!r} stands twice in one object. Keep one of the two") from error
    except ValueError as error:  # Python's limit on the digits of a number
        raise JsonError(f"it holds a number of too many digits: {error}") from error


def read(file: Path, *, unique: bool = True) -> Any:
    """The value in a JSON file. Raises JsonError as `loads`, and OSError for a file that cannot be read."""
    return loads(file.read_bytes(), unique=unique)


def read_object(file: Path, *, unique: bool = True) -> dict[str, Any]:
    """The object in a JSON file. Raises as `read`, and JsonError for another value."""
    value = read(file, unique=unique)
    if not isinstance(value, dict):
        raise JsonError(f"it holds {type(value).__name__} and not an object, {{…}}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


def _second(text: str) -> tuple[str, int]:
    """The first key of a JSON text that its object had before, and the line, from 1, where it stands again."""
    seen: list[set[str]] = []  # keys of the objects and lists that are open
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "{[":
            seen.append(set())
        elif word in "}]":
            seen.pop()
        elif _NAME.match(text, token.end()):
            key = json.loads(word, strict=False)
            if key in seen[-1]:
                return key, text.count("\n", 0, token.start()) + 1
            seen[-1].add(key)
    raise AssertionError("no key stands twice")
