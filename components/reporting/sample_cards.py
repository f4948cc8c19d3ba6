"""Prompts and responses on the report card: nobody's to trust, so they stay text."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.reporting.text import figures_line

if TYPE_CHECKING:
    from metaflow.cards import MetaflowCardComponent

LONGEST_TEXT = 600  # characters of a prompt or response
LONG_WORD = re.compile(r"\S{40}(?=\S)")  # would stretch the table beyond the page
FRAME = "width: 100%; height: 800px; border: 1px solid #888; border-radius: 8px"


def example_table(examples: Sequence[Mapping[str, Any]]) -> MetaflowCardComponent:
    """Text of models stands in plain cells, which the card's viewer shows as they are.

    In Markdown it would run: the viewer passes HTML on and knows no escapes.
    """
    from metaflow.cards import Table

    columns = {
        "prompt": "prompt",
        "answer": "answer",
        "reference_response": "reference",
        "reference_reward": "reward",
        "final_response": "final policy",
        "final_reward": "reward",
    }
    used = [name for name in columns if not all(_missing(example[name]) for example in examples)]
    rows = [[_cell(example[name]) + _parts(example, name) for name in used] for example in examples]
    return Table(rows, headers=[columns[name] for name in used], disable_updates=True)


def _cell(value: str | float | None) -> str:
    """Text of a table cell; line breaks, which a cell cannot hold, become a sign. Empty if missing."""
    if value is None or _missing(value):
        return ""
    if not isinstance(value, str):
        return f"{value:.3g}"
    text = value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
    return LONG_WORD.sub("\\g<0>\N{ZERO WIDTH SPACE}", " ⏎ ".join(text.splitlines()))


def _parts(example: Mapping[str, Any], column: str) -> str:
    """Behind a reward, what it was made of."""
    side, _, kind = column.rpartition("_")
    parts = example.get(f"{side}_parts", {}) if kind == "reward" else {}
    return f" ({figures_line(parts, ' ', ', ')})" if parts else ""


def _missing(value: str | float | None) -> bool:
    return value is None or (not isinstance(value, str) and math.isnan(value))


def sample_frame(page: str, run: str) -> list[MetaflowCardComponent]:
    """A whole HTML page in a frame of the card, which it cannot reach; and the command that shows all of the run.

    Markdown passes HTML on, up to an empty line: there is none in the frame's one attribute.
    """
    from metaflow.cards import Markdown

    inside = html.escape(page).replace("\n", "&#10;").replace("\r", "&#13;")
    frame = f'<iframe title="Samples" sandbox="allow-scripts" style="{FRAME}" srcdoc="{inside}"></iframe>'
    return [Markdown(f"## Samples\n\nEvery sample: `wind samples {run}`"), Markdown(frame)]
