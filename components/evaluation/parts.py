"""Means over the evaluation prompts, or over one group of them, with intervals; and their columns in `history`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.data.parts import ENDINGS, PART
from components.evaluation.intervals import interval, rate_interval

if TYPE_CHECKING:  # most steps need no table
    import pandas as pd

WIN_RATE, HELD_OUT = "win_rate", "held_out"
BOUNDS = ("", "_low", "_high")
SHOWN = "win rate"  # its name among the parts, none of which can have a space
COLUMN = re.compile(rf"(?P<name>{WIN_RATE}|{PART}\w+)(?P<place>\[(?P<group>.*)\])?", re.DOTALL)


@dataclass(frozen=True)
class Mean:
    """A mean over prompts with its 95 % interval, which is NaN where it is not known."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Measure:
    """One quantity, of the policy and of the reference."""

    name: str  # WIN_RATE, or PART and the name of the judge's part
    group: str | None  # None: all evaluation prompts
    prompts: int
    policy: Mean
    reference: Mean | None = None  # none of a win rate, which is against it


def mean_interval(values: NDArray[np.float64], *, share: bool = False) -> Mean:
    """Mean and 95 % interval of a quantity that may be any number: a t-interval. Of one prompt it is NaN.

    With `share`, of values that are 0 or 1: `intervals.rate_interval`, which knows of both ends.

    Args:
        values: (n, M), of M responses to each of n prompts. The prompt is the unit, as responses to one prompt are not
            independent: the interval is that of n means.
        share: whether the quantity is never anything but 0 or 1.
    """
    means = values.mean(1)
    return Mean(float(means.mean()), *rate_interval(means)) if share else Mean(*interval(means))


def columns(measures: Iterable[Measure]) -> dict[str, float]:
    """The columns of `history` for one iteration.

    A part of the judge's scores has `part_<name>`, its mean over the responses to the held-out prompts, `_low` and
    `_high`, the 95 % interval of that mean over prompts, and the same of the reference: `part_<name>_reference`,
    `part_<name>_reference_low`, `part_<name>_reference_high`. With groups of prompts, each of these and `win_rate`,
    `win_rate_low` and `win_rate_high` stand also with `[<group>]` at their end, such as `part_length_low[short]`.
    `held_out` and `held_out[<group>]` count the prompts. `tidy` gives them as rows.
    """
    found: dict[str, float] = {}
    prompts: dict[str, int] = {}
    for one in measures:
        place = "" if one.group is None else f"[{one.group}]"
        sides = {"": one.policy} if one.reference is None else {"": one.policy, "_reference": one.reference}
        for side, value in sides.items():
            for bound, number in zip(BOUNDS, (value.mean, value.low, value.high), strict=True):
                found[f"{one.name}{side}{bound}{place}"] = number
        prompts[place] = one.prompts
    if prompts:
        prompts.setdefault("", sum(prompts.values()))  # groups hold each prompt once
    return found | {f"{HELD_OUT}{place}": count for place, count in prompts.items()}


def evaluated(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of the iterations after which the policy was evaluated."""
    return history[history["win_rate"].notna()] if "win_rate" in history else history


def tidy(history: pd.DataFrame) -> pd.DataFrame:
    """What `columns` wrote, a row for each quantity, group and iteration, of those that the last evaluation measured.

    Returns:
        name (of the part, or "win rate"), group ("" for all evaluation prompts), prompts (how many; NaN if not known),
        iteration (evaluated ones; 0: the reference, where it has a value), mean, low, high. Rows of one name stand
        together.
    """
    import pandas as pd

    history = evaluated(history)
    rows: dict[str, list[dict[str, Any]]] = {}
    for column in map(str, history):
        found = COLUMN.fullmatch(column)
        if found is None or found["name"].removeprefix(PART).endswith(ENDINGS) or pd.isna(history[column].iloc[-1]):
            continue
        name = SHOWN if found["name"] == WIN_RATE else found["name"].removeprefix(PART)
        shared = {"name": name, "group": found["group"] or ""}
        rows.setdefault(name, []).extend({**shared, **row} for row in _rows(history, found["name"], found["place"]))
    return pd.DataFrame([row for part in rows.values() for row in part])


def _rows(history: pd.DataFrame, name: str, place: str | None) -> list[dict[str, float]]:
    """Of one quantity and group: the reference, then the iterations."""
    place = place or ""
    prompts = _values(history, f"{HELD_OUT}{place}")[-1]
    policy, reference = (
        np.stack([_values(history, f"{name}{side}{bound}{place}") for bound in BOUNDS], axis=1)
        for side in ("", "_reference")
    )
    found = [(0, reference[-1])] if np.isfinite(reference[-1, 0]) else []
    found += zip(history["iteration"], policy, strict=True)
    return [
        {"prompts": prompts, "iteration": int(iteration), "mean": mean, "low": low, "high": high}
        for iteration, (mean, low, high) in found
    ]


def _values(history: pd.DataFrame, column: str) -> NDArray[np.float64]:
    if column not in history:
        return np.full(len(history), np.nan)
    return history[column].to_numpy(dtype=np.float64)
