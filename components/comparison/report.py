"""The results of a comparison as text, for the terminal, the report card and comparison.md."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import pandas as pd

from components.comparison import analysis
from components.reporting.commands import command_lines
from components.reporting.text import aligned, duration, markdown_table, number

SUMMARY_HEADERS = ["arm", "win rate", "95% interval", "KL", "reward", "samples", "time", "prompts", "seeds"]
COSTS = {"samples": "Samples", "seconds": "Time"}
WIDTH = 120  # characters of a line of prose in a file
SUMMARY_NOTE = (
    "Means over seeds after the last iteration. Win rate against the reference, with its 95% t-interval over seeds, of "
    "each arm for itself; KL in nats per response; samples are responses drawn for training, time that of generate, "
    "score and train, prompts those of an iteration. All arms share base policy and held-out prompts: the seeds vary "
    "sampling and training only."
)
REACH_NOTE = (
    "Where an arm's mean win rate over seeds first reaches a level, linear between evaluations; a dash: never. "
    "“X's end” is the win rate that X ended with."
)


def summary_rows(results: pd.DataFrame) -> list[list[str]]:
    """Cells under `SUMMARY_HEADERS`, one row per arm."""
    return [
        [
            str(row["arm"]),
            number(row["win_rate"], ".3f"),
            f"{row['win_rate_low']:.3f}-{row['win_rate_high']:.3f}" if row["seeds"] > 1 else "-",
            number(row["kl"], "z.2f"),
            number(row["reward_mean"], ".3f"),
            number(row["samples"], ",.0f"),
            duration(row["seconds"]),
            number(row["prompts"], ",.0f"),
            str(row["seeds"]),
        ]
        for row in analysis.summary(results).to_dict("records")
    ]


def reach_headers(reach: pd.DataFrame) -> list[str]:
    """The headers of `reach_rows`."""
    return ["to reach", "win rate", *map(str, reach["arm"].unique())]


def reach_rows(reach: pd.DataFrame, cost: str) -> list[list[str]]:
    """One row per level; `cost` is "samples" or "seconds"."""
    return [
        [str(name), f"{rows['win_rate'].iloc[0]:.3f}", *(_cost(value, cost) for value in rows[cost])]
        for name, rows in reach.groupby("level", sort=False)
    ]


def text(results: pd.DataFrame, reach: pd.DataFrame) -> str:
    """Tables and verdicts for the terminal."""
    parts = [aligned(SUMMARY_HEADERS, summary_rows(results), labels=1)]
    if len(reach):
        parts += [
            f"{title} to reach a win rate:\n{aligned(reach_headers(reach), reach_rows(reach, cost), labels=1)}"
            for cost, title in COSTS.items()
        ]
    return "\n\n".join([*parts, "\n".join(analysis.verdicts(results))])


def markdown(results: pd.DataFrame, reach: pd.DataFrame, *, title: str) -> str:
    """The same as Markdown, beside comparison.png."""
    parts = [f"# {title}", verdict_list(results), "![Win rates](comparison.png)"]
    parts += [markdown_table(SUMMARY_HEADERS, summary_rows(results)), textwrap.fill(SUMMARY_NOTE, WIDTH)]
    if len(reach):
        for cost, heading in COSTS.items():
            parts += [
                f"## {heading} to reach a win rate",
                markdown_table(reach_headers(reach), reach_rows(reach, cost)),
            ]
        parts += [textwrap.fill(REACH_NOTE, WIDTH)]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict_list(results: pd.DataFrame) -> str:
    """The verdicts as a Markdown list."""
    return "\n".join(f"* {sentence}" for sentence in analysis.verdicts(results))


def next_commands(flow_file: str, flow: str, run_id: str, folder: str | None = None) -> str:
    """The commands that show a finished comparison."""
    read = (
        f'from metaflow import Run, namespace; namespace(None); print(Run("{flow}/{run_id}").data.results.to_string())'
    )
    return command_lines(
        [
            ("see the report", ["python", flow_file, "card", "view", f"{run_id}/end"]),
            ("write it to files", ["wind", "compare", f"{flow}/{run_id}", "comparison"]),
            ("read the results", ["python", "-c", read]),
        ],
        folder,
    )


def _cost(value: float, cost: str) -> str:
    if math.isnan(value):
        return "-"
    return duration(value) if cost == "seconds" else f"{value:,.0f}"


def write(results: pd.DataFrame, reach: pd.DataFrame, directory: Path, *, title: str) -> None:
    """Writes comparison.csv, comparison.png and comparison.md over older ones; makes the directory if need be."""
    from components.comparison.charts import comparison_figure
    from components.reporting.charts import save_png

    directory.mkdir(parents=True, exist_ok=True)
    results.to_csv(directory / "comparison.csv", index=False)
    save_png(comparison_figure(results), directory / "comparison.png")
    text = markdown(results, reach, title=title)
    (directory / "comparison.md").write_text(text, encoding="utf-8")
