"""A comparison as a picture: win rate against samples, time and KL, a line per arm."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator

from components.comparison import analysis
from components.reporting.charts import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, SKY, VERMILION, unit_of_time

# Okabe and Ito's, without their yellow, which is faint on white; the marker tells arms apart without colour.
PURPLE, BLACK = "#CC79A7", "#111827"
STYLES = (
    (BLUE, "o"),
    (VERMILION, "s"),
    (GREEN, "^"),
    (ORANGE, "D"),
    (PURPLE, "v"),
    (SKY, "P"),
    (BLACK, "X"),
    (GREY, "*"),
)


def comparison_figure(results: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Three panels with each arm's mean curve over seeds; bands over samples and time span smallest and largest seed.

    Args:
        results: of `analysis.tidy`.
        title: heading of the figure.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03)
    figure = Figure(figsize=(12, 4.4), layout=layout)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
    panels = figure.subplots(1, 3, sharey=True)
    curves = analysis.curves(results)
    divisor, unit = unit_of_time(max(float(curve["seconds"].max()) for curve in curves.values()))
    for panel, (cost, scale, label) in zip(
        panels,
        [
            ("samples", 1, "responses drawn for training"),
            ("seconds", divisor, f"{unit} of generate, score and train"),
            ("kl", 1, "KL to the reference, nats per response"),
        ],
        strict=True,
    ):
        _prepare(panel, label)
        for (arm, curve), (color, marker) in zip(curves.items(), _styles(len(curves)), strict=True):
            _draw(panel, curve, curve[cost] / scale, color=color, marker=marker, label=arm)
    panels[0].set_ylabel("win rate vs reference", fontsize=10.5, color=GREY)
    panels[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    handles, labels = panels[0].get_legend_handles_labels()
    columns = min(len(curves), 8)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=11)
    return figure


def _styles(count: int) -> list[tuple[str, str]]:
    """A colour and a marker for each arm; from the ninth on, pairs that differ from all before."""
    n = len(STYLES)
    return [(STYLES[i % n][0], STYLES[(i + i // n) % n][1]) for i in range(count)]


def _prepare(panel: Axes, label: str) -> None:
    panel.set_xlabel(label, fontsize=10.5, color=GREY)
    panel.tick_params(labelsize=10.5, color=LIGHT, labelcolor=DARK)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6))
    panel.grid(color="#E5E7EB", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(LIGHT)
    panel.axhline(0.5, color=GREY, linewidth=1.2, linestyle="--", zorder=1)


def _draw(panel: Axes, curve: pd.DataFrame, x: pd.Series[float], *, color: str, marker: str, label: str) -> None:
    if x.is_monotonic_increasing:  # KL goes back and forth, and a band would cover itself
        panel.fill_between(x, curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
    size = 6 if len(x) <= 20 else 3
    panel.plot(x, curve["win_rate"], color=color, linewidth=2, marker=marker, markersize=size, label=label)
