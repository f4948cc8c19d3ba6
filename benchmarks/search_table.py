"""The trials of a search (tune.py) as a Markdown table: each algorithm's best one, and how the others did.

python benchmarks/search_table.py benchmarks/results/equal_search.csv
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from components.reporting.text import markdown_table

HEADERS = ["algorithm", "trials", "best", "all, best first", "responses", "epochs", "learning rate", "own", "KL"]
EVERYWHERE = {"name", "clip"}  # of an algorithm's settings; wind's clip is off in all trials


def cells(trials: pd.DataFrame) -> list[str]:
    """Cells under `HEADERS` of one algorithm's trials: win rate against the reference, KL in nats per response."""
    ordered = trials.sort_values("win_rate", ascending=False)
    best = ordered.iloc[0]
    settings: dict[str, Any] = json.loads(best["settings"])
    own = {key: value for key, value in settings["algorithm"].items() if key not in EVERYWHERE}
    return [
        str(best["algorithm"]),
        str(len(trials)),
        f"{best['win_rate']:.3f}",
        " ".join(f"{rate:.3f}" for rate in ordered["win_rate"]),
        str(settings.get("generation", {}).get("responses", 3)),  # J-BOND draws a response and two rivals
        str(settings["training"].get("epochs", 1)),
        f"{settings['training']['learning_rate']:g}",
        ", ".join(f"{key} {value:g}" for key, value in own.items()) or "-",
        f"{best['kl']:.2f}",
    ]


def table(trials: pd.DataFrame) -> str:
    """Markdown, the algorithm with the best trial first."""
    rows = [cells(group) for _, group in trials.groupby("algorithm")]
    return markdown_table(HEADERS, sorted(rows, key=lambda row: row[2], reverse=True))


if __name__ == "__main__":
    print(table(pd.read_csv(Path(sys.argv[1]))))
