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


def read(path: Path) -> tuple[Arms, float]:
    """Share of constraints met by seed of each arm, the worst first; and the base's."""
    found: dict[str, dict[int, float]] = {}
    base = []
    for row in map(json.loads, path.read_text("utf-8").splitlines()):
        arm = row["arm"]
        if not arm["iterations"]:
            base.append(row["met"])
        elif "met" in row:
            found.setdefault(_name(arm), {})[arm["seed"]] = row["met"]
    arms = {name: np.array(list(seeds.values())) for name, seeds in found.items() if len(seeds) >= SEEDS}
    return dict(sorted(arms.items(), key=lambda item: item[1].mean())), float(np.mean(base))


def _name(arm: dict[str, Any]) -> str:
    drawn = arm["prompts"] * arm["responses"] * arm["iterations"]
    own = {key: value for key, value in arm["algorithm"].items() if key != "name"} if "TRL" not in arm["name"] else {}
    known = {"eta": 1000.0, "beta": 0.002, "clip": 0.2}  # WIND's defaults
    changed = ", ".join(f"{k} {v:g}" for k, v in own.items() if known.get(k) != v)
    what = "TRL's GRPO" if "TRL" in arm["name"] else {"jbond": "J-BOND"}.get(arm["algorithm"]["name"], "").strip()
    what = what or arm["algorithm"]["name"].upper()
    passes = "" if arm["training"].get("epochs") == 2 or what == "J-BOND" else f", {arm['training']['epochs']} passes"
    shape = f"{arm['iterations']} x {arm['prompts']} prompts at {arm['training']['learning_rate']:g}"
    return f"{what}, {shape}{passes}{', ' + changed if changed else ''}: {drawn:,} responses"


def half_width(arms: Arms) -> float:
    """Of the simultaneous intervals, for arms of as many seeds as the smallest has."""
    degrees = sum(len(met) - 1 for met in arms.values())
    spread = math.sqrt(sum(met.var(ddof=1) * (len(met) - 1) for met in arms.values()) / degrees)
    fewest = min(map(len, arms.values()))
    return t_quantile(degrees, 1 - 0.05 / len(arms)) * spread / math.sqrt(fewest)


def draw(arms: Arms, base: float) -> Figure:
    """Dots, means and intervals."""
    figure = Figure(figsize=(9.5, 0.6 * len(arms) + 1.4), layout="constrained")
    panel = figure.subplots()
    half = half_width(arms)
    for y, (name, met) in enumerate(arms.items()):
        color = "#0072B2" if name.startswith("WIND") else "#6B7280"
        panel.plot([met.mean() - half, met.mean() + half], [y, y], color=color, linewidth=2, alpha=0.5)
        panel.plot(met, [y] * len(met), "o", color=color, markersize=4, alpha=0.5, linestyle="none")
        panel.plot([met.mean()], [y], "D", color=color, markersize=8)
        panel.text(met.mean(), y + 0.2, f"{met.mean():.3f}", color=color, ha="center", fontsize=9)
    panel.axvline(base, color="#9CA3AF", linestyle="--", linewidth=1)
    panel.text(base, len(arms) - 0.4, f"before: {base:.3f}", fontsize=9, color="#6B7280", ha="center")
    panel.set_yticks(range(len(arms)), list(arms), fontsize=9)
    panel.set_xlabel("share of constraints met on held-out topics")
    panel.set_ylim(-0.5, len(arms))
    panel.grid(axis="x", color="#E5E7EB")
    panel.spines[["top", "right", "left"]].set_visible(False)
    return figure


def main() -> None:
    """See the module."""
    arms, base = read(Path(sys.argv[1]))
    draw(arms, base).savefig(sys.argv[2], dpi=120, metadata={"Software": None})
    for name, met in reversed(arms.items()):
        print(f"{met.mean():.3f} ± {half_width(arms):.3f}  {name}")


if __name__ == "__main__":
    main()
