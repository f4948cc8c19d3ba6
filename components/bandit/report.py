"""The laboratory's results as plain text, for the terminal and the report card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from components.reporting.commands import command_lines

if TYPE_CHECKING:
    import pandas as pd

SMALL_GAP = 1e-6
HEADERS = ["setting", "method", "duality gap", "gap <= 1e-6 at", "KL target", "KL reference", "win rate", "reward"]


def summary_rows(results: pd.DataFrame) -> list[list[str]]:
    """Cells under `HEADERS`, a row per setting and method: means over seeds at the last iteration.

    `gap <= 1e-6 at` is the first iteration from which the gap stays there with every seed. KL in nats.
    """
    groups = results.groupby(["setting", "method"], sort=False)
    return [[str(where), str(label), *_cells(rows)] for (where, label), rows in groups]


def summary_table(results: pd.DataFrame) -> str:
    """The summary as aligned text."""
    rows = [HEADERS, *summary_rows(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(_aligned(row, widths) for row in rows)


def next_commands(flow_file: str, flow: str, run_id: str, folder: str | None = None) -> str:
    """The commands that show a finished run: its report card and its results."""
    read = (
        f'from metaflow import Run, namespace; namespace(None); print(Run("{flow}/{run_id}").data.results.to_string())'
    )
    commands = [
        ("see the report", ["python", flow_file, "card", "view", f"{run_id}/end"]),
        ("read the results", ["python", "-c", read]),
    ]
    return command_lines(commands, folder)


def complexity_sentence(slope: float) -> str:
    """What the sample-complexity curve says."""
    return (
        f"The error of one sampled iteration falls as M^({slope:.2f}) in the number of samples; M^(-0.50) is expected."
    )


def _cells(rows: pd.DataFrame) -> list[str]:
    last = rows[rows["iteration"] == rows["iteration"].max()]
    mean = last.mean(numeric_only=True)
    return [
        _number(mean["gap"], ".1e"),
        _reached(rows),
        _number(mean["kl_target"], ".1e"),
        _number(mean["kl_reference"], ".3f"),
        _number(mean["win_rate"], ".3f"),
        _number(mean["reward"], ".3f"),
    ]


def _reached(rows: pd.DataFrame) -> str:
    worst = rows.groupby("iteration")["gap"].max()
    above = worst.index[worst > SMALL_GAP]
    first = int(above.max()) + 1 if len(above) else 0
    return str(first) if first <= worst.index.max() else "-"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(float(value), form)


def _aligned(row: list[str], widths: list[int]) -> str:
    """Labels to the left, figures to the right."""
    cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells)
