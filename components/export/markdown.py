"""Markdown in which text of others stays text: no link, picture, HTML or table of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from components.reporting.text import markdown_table

LONGEST = 200  # characters of what stands within a line


def code(text: str, *, longest: int = LONGEST) -> str:
    """A code span within a line: nothing in it is read as Markdown or HTML."""
    line = _printable(" ".join(text.split()))
    line = line if len(line) <= longest else f"{line[: longest - 1]}…"
    marks = "`" * (1 + _longest_run(line))
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{marks}{space}{line}{space}{marks}"


def block(text: str, language: str = "text") -> str:
    """Fenced code, with a fence longer than any in it."""
    fence = "`" * max(3, 1 + _longest_run(text))
    inside = _printable(text, keep="\n\t").rstrip("\n")
    return f"{fence}{language}\n{inside}\n{fence}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells may hold code spans: a bar would end the cell even there."""
    return markdown_table(headers, [[cell.replace("|", "\\|") for cell in row] for row in rows])


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _printable(text: str, keep: str = "") -> str:
    """Without what turns the direction of writing or moves a cursor."""
    return "".join(letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}" for letter in text)
