"""What an endpoint says, without the key that it was asked with: some send it back, in errors or elsewhere."""

from __future__ import annotations

import base64
import html
import json
import re
from typing import Any
from urllib.parse import quote

IN_PLACE = "…"
LEAST = 8  # characters of a key that names may not hold; a shorter one is a placeholder, and stands in many a word


def without(key: str | None, text: str) -> str:
    """A text without the key, be it as it is or as URLs, HTML, JSON, Python or base64 write it."""
    if not key:
        return text
    bare = json.dumps(key)[1:-1]
    escaped = {
        bare,
        bare.replace("/", "\\/"),
        repr(key)[1:-1],
        html.escape(key),
        base64.b64encode(key.encode()).decode(),
    }
    quoted = {quote(key), quote(key, safe="")}
    for written in sorted({key, *escaped, *quoted, *map(_lower, quoted)}, key=len, reverse=True):
        text = text.replace(written, IN_PLACE)
    return text


def _lower(quoted: str) -> str:
    """A part of a URL with small letters in its escapes, `%2f`."""
    return re.sub("%..", lambda sign: sign[0].lower(), quoted)


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
