"""docs/speed.md from what against_trl.py measured.

python benchmarks/against_trl_table.py > docs/speed.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from against_trl_cases import CASES, PASSES

RESULTS = Path(__file__).parent / "results" / "against_trl.json"
AIMS = {"fp32": {"demo": 3, "llama": 2, "smollm2": 3}, "bf16": {"demo": 4, "llama": 3, "smollm2": 4}}
MEMORY_AIM = 0.5
HEADERS = (
    *("model", "work", "precision", "threads", "WIND/s", "GRPO/s", "times", "aim", "times, by tokens"),
    *("WIND MB", "GRPO MB", "share", "WIND s: draw, score, train"),
)
TEXT = """# Speed beside TRL's GRPO

Made by `python benchmarks/against_trl_table.py` of `benchmarks/results/against_trl.json`, which
`python benchmarks/against_trl.py` measured on {when}: {processor} ({bf16}),
{packages}.

Judged completions per second of a whole iteration (draw, judge, log-probs under policy and reference, {passes} passes
of training), and the process's peak of memory. Both sides have the same model, prompts, completions, limit of tokens,
optimiser steps and precision, one pinned core per thread; medians of {rounds} rounds in which the sides take turns,
`times` the median of the rounds' ratios. Completions end by chance, TRL's later in these rounds: `times, by tokens`
counts response tokens. A micro-batch is 4 prompts on our side, an optimiser step on TRL's. The aims are our own:
{memory} of the memory, and the speeds of the column. A figure below its aim is printed like one above it.

{table}

`python benchmarks/against_trl.py --check` measures again and fails where a ratio is more than 5 % below this table.
[measured.md](measured.md) says where the time goes.
"""


def cells(row: dict[str, Any]) -> list[str]:
    """Cells under `HEADERS` of one kind of measurement."""
    case, ours, theirs = CASES[row["case"]], row["ours"], row["trl"]
    parts = [median(one["parts"][part] for one in ours) for part in ("generate", "score", "train")]
    rates = [median(one["completions"] / one["seconds"] for one in side) for side in (ours, theirs)]
    tokens = [median(one["tokens"] / one["completions"] for one in side) for side in (ours, theirs)]
    memory = [median(one["megabytes"] for one in side) for side in (ours, theirs)]
    return [
        case.what,
        f"{case.prompts} x {case.responses} x {case.new_tokens}",
        row["precision"],
        str(row["threads"]),
        *(f"{rate:.3g}" for rate in rates),
        f"{row['ratio']:.2f}",
        str(AIMS[row["precision"]][row["case"]]),
        f"{row['ratio'] * tokens[0] / tokens[1]:.2f}",
        *(f"{megabytes:,.0f}" for megabytes in memory),
        f"{row['memory_ratio']:.2f}",
        ", ".join(f"{seconds:.3g}" for seconds in parts),
    ]


def lines(rows: Iterable[list[str] | tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page() -> str:
    """The whole document."""
    results = json.loads(RESULTS.read_text("utf-8"))
    rows = results["rows"]
    where = rows[0]
    return TEXT.format(
        when=results["measured"],
        processor=where["processor"],
        bf16=", ".join(where["bf16"]) or "no products in bf16",
        packages=", ".join(f"{name} {version}" for name, version in where["versions"].items()),
        passes=PASSES,
        rounds=" to ".join(map(str, sorted({len(row["ours"]) for row in rows}))),
        memory=f"{MEMORY_AIM:.0%}",
        table=lines([HEADERS, ["---"] * len(HEADERS), *map(cells, rows)]),
    )


if __name__ == "__main__":
    print(page(), end="")
