"""Text of the responses, and the win rate at equal length, as a table for the terminal and the report card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from components.evaluation.parts import evaluated
from components.evaluation.text import ORDERS
from components.reporting.text import MISSING, aligned, number

if TYPE_CHECKING:  # most steps need no table
    import pandas as pd

RECENT = 3  # iterations that the terminal has room for
LC = "win_rate_lc"
# Columns of `history`, what they are called here, and how their numbers are written.
ROWS = {
    "response_length": ("tokens", ".1f"),
    "truncated": ("truncated", ".1%"),
    **{f"distinct_{order}": (f"distinct-{order} within a response", ".3f") for order in ORDERS},
    **{f"distinct_{order}_across": (f"distinct-{order} over prompts", ".3f") for order in ORDERS},
    "repetition": ("repetition", ".1%"),
    "similarity": ("similarity to the prompt", ".3f"),
    "kl_token": ("KL per token", ".3f"),
}
NOTE = (
    "Responses to the held-out prompts, of the reference and of the policy after each iteration. Win rate at equal "
    "length: a logistic regression tells what length alone wins. Distinct-n: different n-grams among all, lower in "
    "longer text; repetition: 4-grams that the response has had before. A dash: not known."
)


def table(history: pd.DataFrame, recent: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for each figure that is known of some iteration; no rows of a history without such figures.

    `recent` is how many iterations are shown, the last ones; None: all.
    """
    known = evaluated(history)
    shown = known.iloc[-recent if recent else 0 :]
    headers = ["text", "reference", *(f"iteration {int(count)}" for count in shown["iteration"])]
    if LC not in known or known[LC].isna().all():
        return headers, []
    rows = [["win rate at equal length", "0.500", *(number(rate, ".3f") for rate in shown[LC])]]
    rows.append(["(95% interval)", "", *map(_interval, shown[f"{LC}_low"], shown[f"{LC}_high"])])
    for column, (name, form) in ROWS.items():
        if column in known and known[column].notna().any():
            rows.append([name, _reference(known, column, form), *(number(value, form) for value in shown[column])])
    return headers, rows


def text(history: pd.DataFrame) -> str | None:
    """The table for the terminal, with the last iterations; None where nothing of it is known."""
    headers, rows = table(history, RECENT)
    return aligned(headers, rows, labels=1) if rows else None


def _reference(known: pd.DataFrame, column: str, form: str) -> str:
    """The reference's own value, which is 0 for its KL to itself."""
    if column == "kl_token":
        return number(0.0, form)
    values = known[f"{column}_reference"].dropna().tolist() if f"{column}_reference" in known else []
    return number(values[-1], form) if values else MISSING


def _interval(low: float, high: float) -> str:
    return MISSING if math.isnan(low) else f"{low:.3f}-{high:.3f}"
