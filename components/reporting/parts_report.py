"""Parts and groups as a table, for the terminal and the report card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from components.evaluation.parts import SHOWN, evaluated, tidy
from components.reporting.text import MISSING, aligned, number

if TYPE_CHECKING:  # most steps need no table
    import pandas as pd

LABELS = ("part", "group", "prompts")
ALL, BOUNDS = "(all)", "(95% interval)"
LONGEST = 33  # characters of a group's name
RECENT = 3  # iterations that the terminal has room for
NOTE = (
    "Means over the responses to the held-out prompts, of the reference and of the policy after each iteration; with "
    "the 95% interval of the mean over all prompts. A dash: not known."
)


def table(history: pd.DataFrame, recent: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for each part and group, with one for the interval over all prompts; none without both.

    `recent` is how many iterations are shown, the last ones; None: all.
    """
    iterations = [int(count) for count in evaluated(history)["iteration"]][-recent if recent else 0 :]
    headers = [*LABELS, "reference", *(f"iteration {count}" for count in iterations)]
    found = tidy(history)
    if not worth_showing(found):
        return headers, []
    rows = []
    for name, part in found.groupby("name", sort=False):
        if name == SHOWN and set(part["group"]) == {""}:
            continue  # it stands in the history
        form = number_format(part["mean"].abs().max())
        for group, values in part.groupby("group", sort=False):
            labels = [str(name), short(str(group)) or ALL, number(values["prompts"].iloc[0], ",.0f")]
            rows.append([*labels, *_cells(values, iterations, [number(mean, form) for mean in values["mean"]])])
            if not group:
                bounds = [_interval(*two, form) for two in zip(values["low"], values["high"], strict=True)]
                rows.append([str(name), BOUNDS, "", *_cells(values, iterations, bounds)])
    return headers, rows


def text(history: pd.DataFrame) -> str | None:
    """The table for the terminal, with the last iterations; None without parts and groups."""
    headers, rows = table(history, RECENT)
    if not rows:
        return None
    more = f"\n(the last {RECENT} iterations; `history` has all)" if len(evaluated(history)) > RECENT else ""
    return aligned(headers, rows, labels=2) + more


def worth_showing(found: pd.DataFrame) -> bool:
    """Whether there is more than the win rate over all prompts, which every history has."""
    return bool(((found["name"] != SHOWN) | (found["group"] != "")).any())


def number_format(largest: float) -> str:
    """Three digits of the largest of some numbers, as many decimals for all."""
    if largest == 0:
        return ".2f"
    if not 1e-4 <= largest < 1e7:
        return ".2e"
    return f"z,.{max(0, 3 - math.ceil(math.log10(largest)))}f"


def short(name: str) -> str:
    """A group's name; of a long one the beginning and the end, in which names of one family differ."""
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def _cells(values: pd.DataFrame, iterations: list[int], texts: list[str]) -> list[str]:
    """The texts under the reference and the iterations that are shown."""
    known = dict(zip(values["iteration"], texts, strict=True))
    return [known.get(iteration, MISSING) for iteration in (0, *iterations)]


def _interval(low: float, high: float, form: str) -> str:
    return f"{number(low, form)} to {number(high, form)}" if math.isfinite(low) else MISSING
