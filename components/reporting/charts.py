"""The history of a run as a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from components.config.steps import TIMED
from components.evaluation.parts import evaluated

mpl.rcParams["text.parse_math"] = False  # names of groups and parts are the user's, and "$5 to $6" is no formula

# Okabe and Ito's palette, which stays distinct under all common kinds of colour blindness
BLUE, ORANGE, GREEN, SKY, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#6B7280"
DARK, LIGHT, BROWN = "#374151", "#9CA3AF", "#92610A"  # tick labels, axes, labels of orange bars
BAR = 0.6  # of an iteration
STEPS = dict(zip(TIMED, (BLUE, SKY, ORANGE, GREEN), strict=True))
UNITS = ((7200, 3600, "hours"), (300, 60, "minutes"), (0, 1, "seconds"))  # used from, seconds in one, name

Values = NDArray[np.float64]


def history_figure(history: pd.DataFrame, *, title: str | None = None, reward_reference: float | None = None) -> Figure:
    """Six panels over the iterations: win rates, KL, reward, response length and time.

    Args:
        history: a run's `history`, one row per iteration, at least one.
        title: heading of the figure.
        reward_reference: mean reward of the reference's responses, drawn at iteration 0.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(12, 6.6), layout=layout)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
    axes = figure.subplots(2, 3)
    _win_rate(axes[0, 0], history)
    _kl(axes[0, 1], history)
    _reward(axes[0, 2], history, reward_reference)
    _win_rate_previous(axes[1, 0], history)
    _seconds(axes[1, 1], history)
    _length(axes[1, 2], history)
    for panel in axes.flat:
        panel.set_xlim(-0.5, history["iteration"].max() + 0.5)
    return figure


def png(figure: Figure, *, dpi: int = 130) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def png_url(figure: Figure) -> str:
    """The figure as an address that holds it, for cards."""
    return f"data:image/png;base64,{base64.b64encode(png(figure)).decode()}"


def save_png(figure: Figure, path: str | Path) -> None:
    """Writes the figure as PNG."""
    Path(path).write_bytes(png(figure))


def unit_of_time(seconds: float) -> tuple[int, str]:
    """Seconds in the unit in which this time is best read, and the unit's name."""
    return next((size, name) for start, size, name in UNITS if seconds >= start)


def _column(history: pd.DataFrame, name: str) -> Values:
    return history[name].to_numpy(dtype=np.float64)


def _from_reference(history: pd.DataFrame, name: str, start: float | None) -> tuple[Values, Values]:
    """Evaluated iterations and a column's values; with `start`, the reference's own value stands at iteration 0."""
    iterations, values = (_column(evaluated(history), column) for column in ("iteration", name))
    if start is None or history["iteration"].iloc[0] != 1:  # a part of a history does not begin at the reference
        return iterations, values
    return np.insert(iterations, 0, 0), np.insert(values, 0, start)


def prepare(panel: Axes, title: str, unit: str, *, bins: int = 8) -> None:
    """Title, labels and grid of a panel over iterations, with `bins` ticks at most."""
    panel.set_title(title, loc="left", fontsize=12)
    panel.set_xlabel("iteration", fontsize=10.5, color=GREY)
    panel.set_ylabel(unit, fontsize=10.5, color=GREY)
    panel.tick_params(labelsize=10.5, color=LIGHT, labelcolor=DARK)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=bins, min_n_ticks=1))
    panel.grid(axis="y", color="#E5E7EB", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(LIGHT)


def _line(panel: Axes, x: Values, y: Values, color: str, value_format: str) -> None:
    """A line with markers, its last value above the panel."""
    size = 6 if len(x) <= 20 else 3
    panel.plot(x, y, color=color, linewidth=2, marker="o", markersize=size, clip_on=False)
    panel.set_title(format(y[-1], value_format), loc="right", fontsize=12, fontweight="bold", color=color)


def _even(panel: Axes, values: Values) -> None:
    """Marks 0.5, where both policies win equally often, and fits the axis to it and the values."""
    panel.axhline(0.5, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
    low, high = min(0.5, float(values.min())), max(0.5, float(values.max()))
    margin = max(0.1 * (high - low), 0.05)
    panel.set_ylim(max(0.0, low - margin), min(1.0, high + margin))


def _win_rate(panel: Axes, history: pd.DataFrame) -> None:
    prepare(panel, "Win rate vs reference", "share won")
    x, y = _from_reference(history, "win_rate", 0.5)
    _, low = _from_reference(history, "win_rate_low", 0.5)
    _, high = _from_reference(history, "win_rate_high", 0.5)
    panel.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval")
    _line(panel, x, y, BLUE, ".2f")
    _even(panel, np.concatenate([low, high]))
    panel.legend(loc="best", frameon=False, fontsize=10)


def _win_rate_previous(panel: Axes, history: pd.DataFrame) -> None:
    prepare(panel, "Win rate vs the one before", "share won")
    x, y = _from_reference(history, "win_rate_previous", None)
    _line(panel, x, y, VERMILION, ".2f")
    _even(panel, y)


def _kl(panel: Axes, history: pd.DataFrame) -> None:
    prepare(panel, "KL to the reference", "nats per response")
    x, y = _from_reference(history, "kl", 0.0)
    _line(panel, x, y, GREEN, ".2f")
    panel.set_ylim(min(0.0, 1.1 * float(y.min())), None)  # an estimate may fall below zero


def _reward(panel: Axes, history: pd.DataFrame, reference: float | None) -> None:
    prepare(panel, "Mean reward", "judge's score")
    x, y = _from_reference(history, "reward_mean", reference)
    known = np.isfinite(y)
    if known.any():
        _line(panel, x[known], y[known], BLUE, ".3g")
        return
    panel.set_yticks([])
    text = "no rewards:\nthe judge compares pairs"
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", fontsize=11, color=GREY)


def _length(panel: Axes, history: pd.DataFrame) -> None:
    """Mean length as a line, the share of truncated responses as bars on the right axis."""
    prepare(panel, "Response length", "tokens")
    x, y = _from_reference(history, "response_length", None)
    share = panel.twinx()
    share.bar(x, _from_reference(history, "truncated", None)[1], width=BAR, color=ORANGE, alpha=0.45)
    share.set_ylim(0, 1)
    share.set_ylabel("truncated (bars)", fontsize=10.5, color=BROWN)
    share.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    share.tick_params(labelsize=10.5, color=LIGHT, labelcolor=BROWN)
    share.spines[["top", "left", "bottom", "right"]].set_visible(False)
    panel.set_zorder(share.get_zorder() + 1)  # the line in front of the bars
    panel.patch.set_visible(False)
    _line(panel, x, y, BLUE, ".0f")
    panel.set_ylim(0, 1.25 * max(float(y.max()), 1.0))


def _seconds(panel: Axes, history: pd.DataFrame) -> None:
    x = _column(history, "iteration")
    parts = {step: _column(history, f"seconds_{step}") for step in STEPS}
    longest = float(np.sum(list(parts.values()), axis=0).max())
    divisor, unit = unit_of_time(longest)
    prepare(panel, "Time per iteration", unit)
    bottom = np.zeros_like(x)
    for step, seconds in parts.items():
        panel.bar(x, seconds / divisor, bottom=bottom, width=BAR, color=STEPS[step], label=step)
        bottom += seconds / divisor
    panel.set_ylim(0, 1.25 * max(float(bottom.max()), 0.1))  # room for the legend
    panel.legend(
        loc="upper left",
        ncols=4,
        frameon=False,
        fontsize=10,
        borderaxespad=0,
        handlelength=0.7,
        handletextpad=0.4,
        columnspacing=0.8,
    )
