"""The results of real_model.py and real_model_trl.py as a Markdown table.

python benchmarks/real_model_table.py benchmarks/results/real_model.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

HEADERS = (
    *("arm", "responses", "learning rate", "constraints met", "of each seed"),
    *("kinds held out", "KL", "tokens", "cut off"),
)
Row = dict[str, Any]


def cells(rows: list[Row]) -> list[str]:
    """Cells under `HEADERS` of one arm's seeds: means; KL to the reference in nats per response, length in tokens."""
    arm = rows[0]["arm"]
    drawn = arm["prompts"] * arm["responses"] * arm["iterations"]
    held_out = [row["met_held_out_kinds"] for row in rows if row["met_held_out_kinds"] is not None]
    by_seed = sorted(rows, key=lambda row: int(row["arm"]["seed"]))
    return [
        arm["name"],
        str(drawn),
        f"{arm['training']['learning_rate']:g}" if drawn else "-",
        f"{_mean(rows, 'met'):.3f}",
        " ".join(f"{row['met']:.3f}" for row in by_seed),
        f"{fmean(held_out):.3f}" if held_out else "-",
        f"{_mean(rows, 'kl_to_reference'):z.2f}",
        f"{_mean(rows, 'length'):.1f}",
        f"{_mean(rows, 'truncated'):.2f}",
    ]


def _mean(rows: list[Row], name: str) -> float:
    return fmean(float(row[name]) for row in rows)


def table(rows: list[Row]) -> str:
    """Markdown, by number of responses, the best arm first; what diverged stands at the end with the reason."""
    arms: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if "met" in row:
            rate = float(row["arm"]["training"].get("learning_rate", 0))
            arms.setdefault((row["arm"]["name"], rate), []).append(row)
    best_first = sorted(arms.values(), key=lambda seeds: -_mean(seeds, "met"))
    ordered = sorted(map(cells, best_first), key=lambda line: int(line[1]))
    failed = [[row["arm"]["name"], str(row["arm"]["seed"]), row["failed"]] for row in rows if "met" not in row]
    return "\n".join(f"| {' | '.join(line)} |" for line in [HEADERS, ["---"] * len(HEADERS), *ordered, *failed])


if __name__ == "__main__":
    print(table([json.loads(line) for file in sys.argv[1:] for line in Path(file).read_text("utf-8").splitlines()]))
