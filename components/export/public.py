"""What may be told to everybody: settings and text without secrets, and without paths of the machine they come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "…"
SHORTEST = 8  # characters of a variable's value that is taken for a secret: shorter ones are words
SECRET_NAME = re.compile(r"(?i)(^|[_.-])(api[_-]?key|key|token|secret|passw(or)?d|credentials?|authorization|auth)$")
# As services write them: Hugging Face, OpenAI and others, GitHub, AWS, Google, Slack, JSON web tokens, HTTP headers.
SECRET = re.compile(
    r"\b(hf_\w{16,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}"
    r"|xox[a-z]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)|(?<=Bearer )\S{8,}|(?<=Basic )\S{8,}"
)
ADDRESS = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>`]+")
# From the root or a home, of two parts or more; what follows a letter or a dot is part of something else, as in and/or.
PATH = re.compile(r"(?<![\w/:.…~-])(?:~[\w-]*|/[\w.@+-]+)(?:/[\w.@+-]+)+/?|\b[A-Za-z]:\\[^\s'\"]+")
# A whole setting may be a path with spaces; without any it is one even of a single part.
WHOLE_PATH = re.compile(r"(?:/|~[\w-]*/|[A-Za-z]:\\|\\\\)\S*|[/~][^\n/]*/[^\n]+|[A-Za-z]:\\[^\n]*")


def public(value: Any, name: str = "") -> Any:
    """A setting, with all that is inside it, as everybody may read it.

    Hidden are strings in fields named as secrets are, and within other strings: values of environment variables named
    so, what looks like a token, user, password and query of addresses; of absolute paths the last part stays.
    """
    if isinstance(value, Mapping):
        return {public_text(str(key)): public(inside, str(key)) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [public(inside, name) for inside in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if value and SECRET_NAME.search(name) else public_text(value)


def public_text(text: str) -> str:
    """Text as everybody may read it; see `public`."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = SECRET.sub(HIDDEN, text)
    if WHOLE_PATH.fullmatch(text.strip()):
        return _last(text.strip())
    parts = re.split(f"({ADDRESS.pattern})", text)
    return "".join(_address(part) if i % 2 else PATH.sub(_shortened, part) for i, part in enumerate(parts))


def _secrets() -> set[str]:
    values = {value.strip() for name, value in os.environ.items() if SECRET_NAME.search(name)}
    return {value for value in values if len(value) >= SHORTEST and not value.startswith(("/", "~"))}


def _address(text: str) -> str:
    """Scheme, host, port and path; a file's address as its path."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    if parts.scheme == "file":
        return _last(parts.path)
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _shortened(found: re.Match[str]) -> str:
    return _last(found.group())


def _last(path: str) -> str:
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return f"{HIDDEN}/{name}"
