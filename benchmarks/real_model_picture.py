"""The arms of real_model.py with several seeds as a picture, and what their differences show.

    python benchmarks/real_model_picture.py benchmarks/results/real_model.jsonl docs/real-model.png

Each dot is a seed. Bars are intervals of the mean that hold for all arms at once (Bonferroni, 95 %), from the spread
between seeds that all arms have together, since four seeds alone tell little of it.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from components.evaluation.intervals import t_quantile

SEEDS = 4  # an arm of fewer is left out
Arms = dict[str, NDArray[np.float64]]


def read(path: Path) -> tuple[dict[int, Arms], float]:
    """Share of constraints met by seed of each arm, the worst first, of each budget of responses; and the base's."""
    found: dict[int, dict[str, dict[int, float]]] = {}
    base = []
    for row in map(json.loads, path.read_text("utf-8").splitlines()):
        arm = row["arm"]
        if not arm["iterations"]:
            base.append(row["met"])
        elif "met" in row:
            drawn = arm["prompts"] * arm["responses"] * arm["iterations"]
            found.setdefault(drawn, {}).setdefault(_name(arm), {})[arm["seed"]] = row["met"]
    budgets = {}
    for drawn in sorted(found):
        arms = {name: np.array(list(met.values())) for name, met in found[drawn].items() if len(met) >= SEEDS}
        budgets[drawn] = dict(sorted(arms.items(), key=lambda item: item[1].mean()))
    return {drawn: arms for drawn, arms in budgets.items() if arms}, float(np.mean(base))


def _name(arm: dict[str, Any]) -> str:
    own = {key: value for key, value in arm["algorithm"].items() if key != "name"} if "TRL" not in arm["name"] else {}
    known = {"eta": 1000.0, "beta": 0.002, "clip": 0.2}  # WIND's defaults
    kept = own.pop("trained_responses", None)
    part = f", {own.pop('trained_part', 'furthest')} {kept} of {arm['responses']}" if kept else ""
    changed = ", ".join(f"{k} {v:g}" for k, v in own.items() if known.get(k) != v)
    what = "TRL's GRPO" if "TRL" in arm["name"] else {"jbond": "J-BOND"}.get(arm["algorithm"]["name"], "").strip()
    what = what or arm["algorithm"]["name"].upper()
    passes = "" if arm["training"].get("epochs") == 2 or what == "J-BOND" else f", {arm['training']['epochs']} passes"
    shape = f"{arm['iterations']} x {arm['prompts']} at {arm['training']['learning_rate']:g}"
    return f"{what}{part}, {shape}{passes}{', ' + changed if changed else ''}"


def half_width(budgets: dict[int, Arms]) -> float:
    """Of the simultaneous intervals of all arms, as if each had as few seeds as the smallest."""
    every = [met for arms in budgets.values() for met in arms.values()]
    degrees = sum(len(met) - 1 for met in every)
    spread = math.sqrt(sum(met.var(ddof=1) * (len(met) - 1) for met in every) / degrees)
    return t_quantile(degrees, 1 - 0.05 / len(every)) * spread / math.sqrt(min(map(len, every)))


def draw(budgets: dict[int, Arms], base: float) -> Figure:
    """Dots, means and intervals; a panel for each budget, the largest on top."""
    sizes = [len(arms) for arms in reversed(budgets.values())]
    figure = Figure(figsize=(9.5, 0.5 * sum(sizes) + 0.6 * len(sizes) + 0.6), layout="constrained")
    panels = figure.subplots(len(sizes), sharex=True, squeeze=False, height_ratios=[size + 0.5 for size in sizes])[:, 0]
    half = half_width(budgets)
    for panel, (drawn, arms) in zip(panels, reversed(budgets.items()), strict=True):
        for y, (name, met) in enumerate(arms.items()):
            color = "#0072B2" if name.startswith("WIND") else "#6B7280"
            panel.plot([met.mean() - half, met.mean() + half], [y, y], color=color, linewidth=2, alpha=0.5)
            panel.plot(met, [y] * len(met), "o", color=color, markersize=4, alpha=0.5, linestyle="none")
            panel.plot([met.mean()], [y], "D", color=color, markersize=8)
            panel.text(met.mean(), y + 0.22, f"{met.mean():.3f}", color=color, ha="center", fontsize=9)
        panel.axvline(base, color="#9CA3AF", linestyle="--", linewidth=1)
        panel.set_title(f"{drawn:,} responses", loc="left", fontsize=10)
        panel.set_yticks(range(len(arms)), list(arms), fontsize=9)
        panel.set_ylim(-0.5, len(arms))
        panel.grid(axis="x", color="#E5E7EB")
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xlabel(f"share of constraints met on held-out topics; dashed: before, {base:.3f}")
    return figure


def main() -> None:
    """See the module."""
    budgets, base = read(Path(sys.argv[1]))
    draw(budgets, base).savefig(sys.argv[2], dpi=120, metadata={"Software": None})
    for drawn, arms in reversed(budgets.items()):
        for name, met in reversed(arms.items()):
            print(f"{drawn:5,} responses: {met.mean():.3f} ± {half_width(budgets):.3f}  {name}")


if __name__ == "__main__":
    main()
