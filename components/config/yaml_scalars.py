"""Scalars of YAML by the core schema of YAML 1.2, section 10.3.2: what a value without quotes means."""

from __future__ import annotations

import math
import re
from typing import Any

PLAIN = "?"  # stands for the tag of a scalar with neither tag nor quotes
KINDS = ("str", "int", "float", "bool", "null")  # tags that a scalar may have
MOST_DIGITS = 100  # Python refuses to read thousands, and 64 bits have 19

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_FLOAT = re.compile(_DECIMAL + r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Booleans of YAML 1.1 and text in 1.2, where `no` would count as true wherever any value is taken.
_OLD_BOOL = re.compile(r"yes|Yes|YES|on|On|ON|no|No|NO|off|Off|OFF")


def scalar(text: str, kind: str = PLAIN) -> Any:
    """The value that a scalar means.

    Args:
        text: as it is written.
        kind: its tag, one of KINDS; "str" for a text in quotes, PLAIN for no tag.

    Raises:
        ValueError: text of another kind than the tag says, a number beyond 64 bits or the range of floats, NUL, half
            a character, and old booleans, which others read as text. The message has the remedy.
    """
    if text.encode("utf-8", "replace").decode() != text:
        raise ValueError(f"{_cut(text)!r} holds half a character, an escape from \\ud800 to \\udfff. Write it whole")
    if "\0" in text:
        raise ValueError(f"{_cut(text)!r} holds the character NUL. Remove it")
    if kind == "str":
        return text
    if _NULL.fullmatch(text) and kind in (PLAIN, "null"):
        return None
    if _BOOL.fullmatch(text) and kind in (PLAIN, "bool"):
        return text.lower() == "true"
    whole = _INT.fullmatch(text) is not None
    if (whole or _FLOAT.fullmatch(text)) and kind in (PLAIN, "int" if whole else "float", "float"):
        number = _whole(text) if whole else _float(text.lower())
        return float(number) if kind == "float" else number
    if kind != PLAIN:
        raise ValueError(f"{_cut(text)!r} is no !!{kind}. Write the value without a tag")
    if _OLD_BOOL.fullmatch(text):
        meant = "true" if text.lower() in ("yes", "on") else "false"
        raise ValueError(f"{text} may mean {meant} or the word. Write {meant}, or {text!r} with the quotes")
    return text


def plain_number(text: str) -> float:
    """A number outside of YAML that is written as there, in ASCII digits: not `１`, `1_000`, `0x10`. NaN for others."""
    return float(text) if re.fullmatch(_DECIMAL, text) else math.nan


def _whole(text: str) -> int:
    if len(text) <= MOST_DIGITS:
        number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if abs(number) < 2**63:
            return number
    raise ValueError(f"{_cut(text)} does not fit into 64 bits. Write a smaller number, or put it in quotes as text")


def _float(text: str) -> float:
    if text.lstrip("+-") in (".inf", ".nan"):
        return float(text.replace(".", ""))
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{_cut(text)} is too large. Write a smaller number, or put it in quotes as text")
    return number


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}… ({len(text):,} characters)"
