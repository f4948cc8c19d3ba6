"""The laboratory's results as pictures: the middle seed as a line, all seeds as a band."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from components.bandit.sampling import fitted_slope
from components.reporting.charts import BLUE, BROWN, DARK, GREEN, GREY, ORANGE, SKY, VERMILION, Values, prepare

COLORS = (BLUE, VERMILION, ORANGE, GREY, GREEN, SKY, BROWN)
DASHES = ("-", "-", "-", "-", (0, (4, 1.5)), (0, (1.5, 1.2)), "-")  # of methods that often lie on another's line
RESOLVED = 1e-16  # below it, a figure in double precision says nothing


def convergence_figure(results: pd.DataFrame, *, rates: Mapping[str, float] | None = None) -> Figure:
    """A column per setting: KL from each method's target, and the duality gap, both on a log axis.

    Args:
        results: a run's results, see `laboratory.trajectory`, with setting, method and seed.
        rates: for each setting, the factor 1 + beta·eta by which WIND's KL falls at least, drawn as a bound.
    """
    figure, axes = _grid(results, rows=2)
    for where, column in zip(_labels(results, "setting"), axes.T, strict=True):
        rows = results[results["setting"] == where]
        prepare(column[0], where, "KL(target || policy), nats", bins=6)
        prepare(column[1], where, "duality gap", bins=6)
        for panel, name in zip(column, ("kl_target", "gap"), strict=True):
            _curves(panel, results, rows, name, floor=RESOLVED)
            panel.set_yscale("log")
        if rates and where in rates:
            _bound(column[0], rows, rates[where])
        for panel in column:
            low, high = panel.get_ylim()
            panel.set_ylim(max(low, RESOLVED), min(high, 1e3))
    _legend(figure, axes[0, 0])
    return figure


def trajectory_figure(results: pd.DataFrame) -> Figure:
    """A column per setting: win rate against the reference, expected reward if any, KL to the reference.

    Iterations on an axis that is linear from 0 to 1 and logarithmic from there: the first ones change most.
    """
    panels = {
        "win_rate": "win rate vs reference",
        "reward": "expected reward",
        "kl_reference": "KL(policy || reference), nats",
    }
    panels = {name: unit for name, unit in panels.items() if results[name].notna().any()}
    figure, axes = _grid(results, rows=len(panels))
    for where, column in zip(_labels(results, "setting"), axes.T, strict=True):
        rows = results[results["setting"] == where]
        for panel, (name, unit) in zip(column, panels.items(), strict=True):
            prepare(panel, where, unit, bins=6)
            if rows[name].isna().all():
                _say(panel, "no rewards:\npreferences only")
                continue
            _curves(panel, results, rows, name)
            panel.set_xscale("symlog", linthresh=1, linscale=0.4)
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
            panel.set_xlim(0, rows["iteration"].max())
        column[0].axhline(0.5, color=GREY, linewidth=1.2, linestyle=":", zorder=1)
    _legend(figure, axes[0, 0])
    return figure


def sample_complexity_figure(errors: pd.DataFrame) -> Figure:
    """Error of one sampled iteration over the number of samples, both logarithmic, beside the rate M^(-1/2).

    Args:
        errors: seed, samples, repeat and error, see `laboratory.sample_complexity`.
    """
    figure = Figure(figsize=(6.4, 4.6), layout=_layout())
    panel = figure.subplots()
    by_seed = errors.pivot_table(index="samples", columns="seed", values="error", aggfunc="mean")
    samples = by_seed.index.to_numpy(dtype=np.float64)
    mean = by_seed.mean(axis=1).to_numpy(dtype=np.float64)
    prepare(panel, "Error of one sampled iteration", "total variation from the exact update", bins=6)
    panel.set_xlabel("samples M", fontsize=10.5, color=GREY)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.fill_between(samples, by_seed.min(axis=1), by_seed.max(axis=1), color=BLUE, alpha=0.18, linewidth=0)
    slope = fitted_slope(samples, mean)
    panel.plot(samples, mean, color=BLUE, linewidth=2, marker="o", label=f"sampled WIND, fitted slope {slope:.2f}")
    guide = mean[0] * np.sqrt(samples[0] / samples)
    panel.plot(samples, 1.25 * guide, color=GREY, linewidth=1.5, linestyle="--", label="M^(-1/2)")
    panel.legend(loc="lower left", frameon=False, fontsize=10.5)
    return figure


def _grid(results: pd.DataFrame, *, rows: int) -> tuple[Figure, Values]:
    """A figure and its axes, an array of objects of shape (rows, settings)."""
    columns = results["setting"].nunique()
    figure = Figure(figsize=(max(4.2 * columns, 6.4), 3.1 * rows + 0.6), layout=_layout())
    return figure, figure.subplots(rows, columns, squeeze=False)


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03, hspace=0.04)


def _labels(results: pd.DataFrame, name: str) -> list[str]:
    """In the order of the config."""
    return [str(label) for label in results[name].unique()]


def _curves(panel: Axes, results: pd.DataFrame, rows: pd.DataFrame, name: str, floor: float = -np.inf) -> None:
    """A line and a band per method, colours by its place among all methods; values below `floor` are left out."""
    for label, color, dash in zip(_labels(results, "method"), cycle(COLORS), cycle(DASHES), strict=False):
        mine = rows[rows["method"] == label]
        by_seed = mine.pivot_table(index="iteration", columns="seed", values=name, dropna=False)
        x = by_seed.index.to_numpy(dtype=np.float64)
        low, middle, high = (
            q.where(q > floor) for q in (by_seed.min(axis=1), by_seed.median(axis=1), by_seed.max(axis=1))
        )
        panel.fill_between(x, low.fillna(floor).where(high.notna()), high, color=color, alpha=0.15, linewidth=0)
        panel.plot(x, middle, color=color, linewidth=2, linestyle=dash, label=label)


def _bound(panel: Axes, rows: pd.DataFrame, rate: float) -> None:
    """WIND's linear rate, from the middle seed's KL at the reference."""
    start = rows[rows["iteration"] == 0].groupby("seed")["kl_equilibrium"].mean().median()
    t = np.arange(rows["iteration"].max() + 1)
    panel.plot(t, start * rate**-t, color=DARK, linewidth=1, linestyle=":", label="(1 + beta·eta)^-t", zorder=1)


def _say(panel: Axes, text: str) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", fontsize=11, color=GREY)


def _legend(figure: Figure, panel: Axes) -> None:
    """Above the panels, where it hides no data."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=10.5)
