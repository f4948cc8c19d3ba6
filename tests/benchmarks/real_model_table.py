"""The results of real_model.py and real_model_trl.py as a Markdown table.

python tests/benchmarks/real_model_table.py tests/benchmarks/results/real_model.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADERS = ("arm", "seed", "responses", "learning rate", "constraints met", "kinds held out", "KL", "tokens", "cut off")


def cells(row: dict[str, Any]) -> list[str]:
    """A result's cells under `HEADERS`; KL to the reference in nats per response, length in tokens."""
    arm = row["arm"]
    held_out = row.get("met_held_out_kinds")
    drawn = arm["prompts"] * arm["responses"] * arm["iterations"]
    return [
        arm["name"],
        str(arm["seed"]),
        str(drawn),
        f"{arm['training'].get('learning_rate', 0):g}" if drawn else "-",
        f"{row['met']:.3f} ± {row['half']:.3f}",
        "-" if held_out is None else f"{held_out:.3f}",
        f"{row['kl_to_reference']:.2f}",
        f"{row['length']:.1f}",
        f"{row['truncated']:.2f}",
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, the best first; what diverged stands at the end with the reason."""
    done = sorted((row for row in rows if "met" in row), key=lambda row: -row["met"])
    failed = [row for row in rows if "met" not in row]
    lines = [HEADERS, ["---"] * len(HEADERS), *(cells(row) for row in done)]
    lines += [[row["arm"]["name"], str(row["arm"]["seed"]), row["failed"]] for row in failed]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table([json.loads(line) for file in sys.argv[1:] for line in Path(file).read_text("utf-8").splitlines()]))
