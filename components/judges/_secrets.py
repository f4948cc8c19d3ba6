"""What an endpoint says, without the key that it was asked with: some send it back, in errors or elsewhere."""

from __future__ import annotations

import base64
import html
import re
from functools import lru_cache
from itertools import pairwise
from typing import Any

IN_PLACE = "…"
LEAST = 8  # characters of a key that names may not hold; a shorter one is a placeholder, and stands in many a word


def without(key: str | None, text: str) -> str:
    """A text without the key, be it as it is or as URLs, HTML, JSON, Python or base64 write all of it or some signs."""
    return _spellings(key).sub(IN_PLACE, text) if key else text


@lru_cache(maxsize=8)
def _spellings(key: str) -> re.Pattern[str]:
    packed = re.escape(base64.b64encode(key.encode()).decode().rstrip("="))
    parts = re.findall(r"\\+|.", key)
    spelled = "".join(_spelled(part, before) for before, part in pairwise(["", *parts]))
    return re.compile(f"{spelled}|{packed}=*")


def _spelled(signs: str, before: str) -> str:
    """The pattern of one sign of a key, all of which are ASCII, or of several backslashes, in any spelling.

    Atomic, and all repetitions bounded: no text takes longer than its length times the key's.

    Args:
        signs: the sign, or backslashes.
        before: what stands before it.
    """
    number, count = ord(signs[0]), len(signs)
    escapes = f"%{number:02x}", rf"\\{{1,8}}u{number:04x}", rf"\\{{1,8}}x{number:02x}"
    references = f"&#0{{0,6}}{number};", f"&#x0{{0,6}}{number:x};"
    coded = f"(?i:{'|'.join(escapes + references)}){{{count}}}"
    if signs.isalnum():
        return f"(?>{coded}|{signs})"
    if signs[0] == "\\":
        return rf"(?>{coded}|\\{{{count},{8 * count}}})"
    slashes = "" if before.startswith("\\") else r"\\{0,8}"
    named = "" if html.escape(signs) == signs else f"{html.escape(signs)}|"
    return f"(?>{coded}|{slashes}(?:{named}{re.escape(signs)}))"


def cleaned(key: str | None, value: Any) -> Any:
    """A value of JSON without the key, in texts and in names. Raises RecursionError for one that is nested too deep."""
    if not key or isinstance(value, float | int):
        return value
    if isinstance(value, str):
        return without(key, value)
    if isinstance(value, list):
        return [cleaned(key, one) for one in value]
    if isinstance(value, dict):
        return {_name(key, name): cleaned(key, one) for name, one in value.items()}
    return value


def _name(key: str, name: str) -> str:
    return without(key, name) if len(key) >= LEAST or name == key else name
