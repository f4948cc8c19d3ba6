"""Figures and tables as plain text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from tqdm import tqdm

MISSING = "-"
_METER = re.compile(r"\d+%\|.*\[[^\[\]]*\]$")


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], *, labels: int = 0) -> str:
    """A table as text; the first `labels` columns stand to the left, figures to the right."""
    table = [headers, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    table.insert(1, ["-" * width for width in widths])
    sides = ["<" if column < labels else ">" for column in range(len(headers))]
    lines = [[f"{cell:{side}{w}}" for cell, side, w in zip(row, sides, widths, strict=True)] for row in table]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; cells are taken as they are."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float, form: str) -> str:
    """In this format; a dash for NaN."""
    return MISSING if math.isnan(value) else format(float(value), form)


def duration(seconds: float) -> str:
    """Such as `8.4 s`, `12 min 05 s` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def figures_line(figures: Mapping[str, float], equals: str, separator: str) -> str:
    """Figures by name in a row, to three digits; those from 1,000 to 10 million as whole numbers."""
    texts = {name: f"{value:.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}" for name, value in figures.items()}
    return separator.join(f"{name}{equals}{text}" for name, text in texts.items())


def digits(value: float) -> str:
    """Three digits or, of large numbers, all before the point; of those that nothing has, 1e15 and more, three."""
    return f"{value:,.0f}" if 100 <= value < 1e15 else f"{value:.3g}"


def meter(description: str, done: int, total: int, elapsed: float, figures: Mapping[str, float], columns: int) -> str:
    """A progress bar in so many columns, with the seconds that it took and may take, and the latest figures."""
    return tqdm.format_meter(
        done,
        total,
        elapsed,
        ncols=columns,
        prefix=description,
        ascii=True,
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        postfix=figures_line(figures, "=", ", "),
    )


def is_meter(line: str) -> bool:
    """Whether a line of a log is a progress bar and nothing else: a `meter`, or one that a library has tqdm draw."""
    return _METER.search(line.strip().rpartition("\r")[2]) is not None
