"""The trial of a judge as text, JSON and a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from components.judges import Judge
from components.judging import measures
from components.judging.measures import Rate, Verdicts
from components.reporting.charts import BLUE, DARK, GREY, LIGHT, ORANGE, png
from components.reporting.text import MISSING, aligned
from components.store.files import replacing

LABELS = {
    measures.AGREEMENT: "agrees with the labels",
    measures.LONGER_CHOSEN: "… where the longer is chosen",
    measures.SHORTER_CHOSEN: "… where the shorter is chosen",
    measures.CONSISTENCY: "same winner in both orders",
    measures.PREFERS_FIRST: "prefers the one shown first",
    measures.PREFERS_LONGER: "prefers the longer one",
    measures.LABELS_LONGER: "labels prefer the longer one",
    measures.TIES: "ties",
    measures.UNPARSED: "answers that are no verdicts",
}
COLORS = {measures.PREFERS_FIRST: ORANGE, measures.PREFERS_LONGER: ORANGE, measures.LABELS_LONGER: GREY}
NOTE = (
    "A tie counts one half. Intervals are of 95% over pairs; an agreement whose interval holds 50% may be "
    "chance. A dash: this judge does not tell."
)


def title(judge: Judge) -> str:
    """A judge's name, with its model, function or address."""
    told = next((getattr(judge, key) for key in ("model", "function", "url") if hasattr(judge, key)), None)
    return judge.name if told is None else f"{judge.name} {told}"


def text(judge: Judge, verdicts: Verdicts, rates: dict[str, Rate]) -> str:
    """A table for the terminal."""
    rows = [[label, *_cells(rates.get(name))] for name, label in LABELS.items()]
    n = len(verdicts.preference)
    took = [f"{verdicts.seconds / n:.3g} s a pair", *_money(verdicts)]
    table = aligned(["the judge", "share", "95% interval", "of"], rows, labels=1)
    return f"{title(judge)}, {n:,} pairs\n\n{table}\n\n{', '.join(took)}\n{NOTE}"


def _cells(found: Rate | None) -> list[str]:
    if found is None or found.count == 0:
        return [MISSING, MISSING, "0" if found else MISSING]
    known = math.isfinite(found.low)
    interval = f"{100 * found.low:.1f}-{100 * found.high:.1f}%" if known else MISSING
    return [f"{100 * found.value:.1f}%", interval, f"{found.count:,}"]


def _money(verdicts: Verdicts) -> list[str]:
    n, usage = len(verdicts.preference), verdicts.usage
    told = []
    if "tokens_in" in usage:
        told.append(f"{usage['tokens_in'] / n:,.0f} tokens in and {usage['tokens_out'] / n:,.0f} out a pair")
    if "cost" in usage:
        told.append(f"cost {usage['cost'] / n:.3g} a pair and {usage['cost']:.3g} for all, as priced in the config")
    return told


def values(judge: Judge, verdicts: Verdicts, rates: dict[str, Rate]) -> dict[str, Any]:
    """The same for programs; a rate over no pairs and an unknown interval are null."""
    n, cost = len(verdicts.preference), verdicts.usage.get("cost")
    return {
        "judge": judge.model_dump(),
        "pairs": n,
        "rates": {name: {key: _finite(value) for key, value in vars(found).items()} for name, found in rates.items()},
        "seconds_per_pair": verdicts.seconds / n,
        "cost_per_pair": None if cost is None else cost / n,
        "usage": dict(verdicts.usage),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def figure(judge: Judge, verdicts: Verdicts, rates: dict[str, Rate]) -> Figure:
    """Each known rate as a point with its interval, agreement on top."""
    names = [name for name in LABELS if name in rates and rates[name].count > 0]
    drawn = Figure(figsize=(9, 1.3 + 0.48 * len(names)), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    panel = drawn.subplots()
    drawn.suptitle(f"{title(judge)}: {len(verdicts.preference):,} pairs", x=0.01, ha="left", fontsize=13)
    for row, name in enumerate(names):
        found, color = rates[name], COLORS.get(name, BLUE)
        if math.isfinite(found.low):
            panel.plot([found.low, found.high], [row, row], color=color, linewidth=5, alpha=0.3, solid_capstyle="butt")
        panel.plot([found.value], [row], color=color, marker="o", markersize=8, clip_on=False)
        told = f"{100 * found.value:.1f}%  (n = {found.count:,})"
        panel.text(1.03, row, told, va="center", fontsize=10.5, color=DARK, transform=panel.get_yaxis_transform())
    panel.axvline(0.5, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
    panel.set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=10.5)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.set_xlabel(
        "share of pairs with its 95% interval; orange is a bias where it is far from 50% or from the labels", color=GREY
    )
    panel.tick_params(labelsize=10.5, color=LIGHT, labelcolor=DARK)
    panel.grid(axis="x", color="#E5E7EB", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(LIGHT)
    return drawn


def write(judge: Judge, verdicts: Verdicts, rates: dict[str, Rate], directory: Path) -> None:
    """judge.json and judge.png, in place of older ones. Raises OSError where they cannot be written."""
    directory.mkdir(parents=True, exist_ok=True)
    told = json.dumps(values(judge, verdicts, rates), indent=2, ensure_ascii=False, allow_nan=False)
    contents = {"judge.json": f"{told}\n".encode(), "judge.png": png(figure(judge, verdicts, rates))}
    for name, content in contents.items():
        with replacing(directory / name, directory) as file:
            file.write(content)
