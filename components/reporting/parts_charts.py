"""Parts over the iterations, and groups of prompts before and after, as pictures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from components.evaluation.parts import SHOWN, tidy
from components.reporting.charts import BLUE, DARK, GREY, LIGHT, SKY, prepare
from components.reporting.parts_report import number_format, short

ACROSS = 3  # panels side by side
WIDTHS = {1: 6.0, 2: 9.0, 3: 12.0}  # inches of a figure, by panels side by side
BAR = 0.38  # of a group's share of the axis
PALE = "#C4C9D1"  # the reference's bars
BEYOND = 0.4  # of the bars' span: intervals of groups of two or three prompts, which can be huge, are cut there


def curves_figure(history: pd.DataFrame) -> Figure | None:
    """A panel for each part: its mean over the iterations, from the reference at 0, with the 95 % interval.

    None without parts.
    """
    found = tidy(history)
    whole = found[(found["group"] == "") & (found["name"] != SHOWN)]
    names = list(whole["name"].unique())
    if not names:
        return None
    figure, panels = _panels(len(names), height=3.0)
    for name, panel in zip(names, panels, strict=True):
        _curve(panel, str(name), whole[whole["name"] == name])
    return figure


def groups_figure(history: pd.DataFrame) -> Figure | None:
    """A panel for the win rate and for each part: bars of each group, the reference's and the last policy's.

    Lines are 95 % intervals; beside a group's name stands the number of its prompts. None without groups.
    """
    found = tidy(history)
    grouped = found[found["group"] != ""]
    names, groups = list(grouped["name"].unique()), list(grouped["group"].unique())
    if not names:
        return None
    last = int(history["iteration"].iloc[-1])
    figure, panels = _panels(len(names), height=1.1 + 0.34 * len(groups), sharey=True)
    for name, panel in zip(names, panels, strict=True):
        _bars(panel, str(name), grouped[grouped["name"] == name], groups, last)
    prompts = grouped.drop_duplicates("group")["prompts"]
    labels = [f"{short(group)} ({count:,.0f})" for group, count in zip(groups, prompts, strict=True)]
    for panel in panels[::ACROSS]:
        panel.set_yticks(range(len(groups)), labels)
        panel.set_ylim(len(groups) - 0.4, -0.6)  # the first group on top
    handles: list[Artist] = [Patch(color=PALE, label="reference")] if (grouped["iteration"] == 0).any() else []
    handles += [Patch(color=SKY, label=f"iteration {last}")]
    handles += [Line2D([], [], color=DARK, linewidth=1.2, label="95% interval")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10.5)
    return figure


def _panels(count: int, *, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Panels row by row, `height` inches each."""
    across, down = min(count, ACROSS), math.ceil(count / ACROSS)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(WIDTHS[across], 0.4 + height * down), layout=layout)
    axes = figure.subplots(down, across, squeeze=False, sharey="row" if sharey else False)
    for unused in axes.flat[count:]:
        unused.set_visible(False)
    return figure, list(axes.flat[:count])


def _curve(panel: Axes, name: str, values: pd.DataFrame) -> None:
    prepare(panel, name, "mean over prompts")
    x, mean, low, high = (values[key].to_numpy(dtype=np.float64) for key in ("iteration", "mean", "low", "high"))
    panel.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval")
    panel.plot(x, mean, color=BLUE, linewidth=2, marker="o", markersize=6 if len(x) <= 20 else 3, clip_on=False)
    shown = format(mean[-1], number_format(float(np.nanmax(np.abs(mean)))))
    panel.set_title(shown, loc="right", fontsize=12, fontweight="bold", color=BLUE)
    panel.set_xlim(-0.5, x.max() + 0.5)
    if np.isfinite(low).any():
        panel.legend(loc="best", frameon=False, fontsize=10)


def _bars(panel: Axes, name: str, values: pd.DataFrame, groups: list[str], last: int) -> None:
    prepare(panel, name, "")
    panel.grid(visible=False, axis="y")
    panel.grid(axis="x", color="#E5E7EB", linewidth=0.8)
    label = "share won against the reference" if name == SHOWN else "mean over prompts"
    panel.set_xlabel(label, fontsize=10.5, color=GREY)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5))
    place = {group: at for at, group in enumerate(groups)}
    two = (values["iteration"] == 0).any()
    for iteration, color, shift in ((0, PALE, -BAR / 2), (last, SKY, BAR / 2 if two else 0)):
        rows = values[values["iteration"] == iteration]
        y = np.array([place[group] for group in rows["group"]], dtype=np.float64) + shift
        panel.barh(y, rows["mean"].to_numpy(), height=BAR, color=color)
        panel.hlines(y, rows["low"].to_numpy(), rows["high"].to_numpy(), color=DARK, linewidth=1.2)
    _limit(panel, values[values["iteration"].isin([0, last])])
    if name == SHOWN:
        panel.axvline(0.5, color=GREY, linewidth=1.2, linestyle="--")
    else:
        panel.axvline(0, color=LIGHT, linewidth=0.8)


def _limit(panel: Axes, values: pd.DataFrame) -> None:
    """Fits the axis to the bars, and to the intervals as far as `BEYOND` allows."""
    low, high = min(0.0, values["mean"].min()), max(0.0, values["mean"].max())
    room = BEYOND * (high - low)
    lowest = min(low, max(low - room, np.fmin(low, values["low"].min())))
    highest = max(high, min(high + room, np.fmax(high, values["high"].max())))
    if highest > lowest:
        panel.set_xlim(lowest, highest + 0.02 * (highest - lowest))
