"""The result of a run as plain text, for the terminal and the report card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.config.steps import TIMED
from components.evaluation.parts import evaluated
from components.reporting import guards_report, parts_report
from components.reporting.text import MISSING, aligned, duration, number

if TYPE_CHECKING:  # most steps need no table
    import pandas as pd

HEADERS = [
    "iteration",
    "win rate",
    "95% interval",
    "vs previous",
    "KL",
    "reward",
    "tokens",
    "truncated",
    "time",
]
WARNINGS = {"warnings": "Training", "text_warnings": "Hints at reward hacking"}  # columns, and of what they tell
TIED_HEADER = "all responses tie"
LEARNING_HEADERS = [
    "iteration",
    "risk, before and after each pass",
    "winners moved",
    "target",
    "losers moved",
    "target",
    "KL to previous",
    "per token",
]


def verdict(history: pd.DataFrame) -> str:
    """One sentence: how the last policy does against the reference, with its 95% interval; and what was warned of."""
    told_of = [told(history, column) for column in WARNINGS]
    return "\n\n".join(text for text in (against_reference(history), *told_of) if text)


def warned(history: pd.DataFrame, column: str = "warnings") -> dict[int, str]:
    """The warnings of a run in a column of `WARNINGS` by iteration, of those that have any."""
    if column not in history:
        return {}
    texts: list[Any] = history[column].tolist()
    pairs = zip(history["iteration"].tolist(), texts, strict=True)
    return {int(iteration): text for iteration, text in pairs if isinstance(text, str) and text}


def told(history: pd.DataFrame, column: str = "warnings") -> str:
    """The last iteration's warnings, or those of the last one that has any, and which others have some; or nothing."""
    found = warned(history, column)
    if not found:
        return ""
    *others, last = found
    also = f" (also in {', '.join(map(str, others))})" if others else ""
    return f"{WARNINGS[column]} in iteration {last}{also}: {found[last]}"


def place(
    kind: str, iteration: int, last: int, *, history: pd.DataFrame | None = None, shard: tuple[int, int] | None = None
) -> str:
    """Where a step stands in its run: iteration, shard (from 0) of so many, the win rate so far and the time to go."""
    told = [f"iteration {iteration} of {last}" if iteration else "before iteration 1", kind]
    if shard is not None:
        told.append(f"shard {shard[0] + 1} of {shard[1]}")
    if history is None or not len(history):
        return " · ".join(told)
    if rate := win_rate_so_far(history):
        told.append(f"win rate {rate}")
    told.append(f"about {duration(seconds_an_iteration(history) * (last - iteration + 1))} of work to go")
    return " · ".join(told)


def win_rate_so_far(history: pd.DataFrame) -> str:
    """The last win rate that was measured, with its interval and when that was; nothing if none was."""
    known = history[history["win_rate"].notna()]
    if not len(known):
        return ""
    row = known.iloc[-1]
    interval = f"{row['win_rate_low']:.3f} to {row['win_rate_high']:.3f}"
    return f"{row['win_rate']:.3f} ({interval}) after iteration {int(row['iteration'])}"


def seconds_an_iteration(history: pd.DataFrame) -> float:
    """What an iteration's timed steps took, in the mean."""
    return float(history[[f"seconds_{step}" for step in TIMED]].sum(axis=1).mean())


def drawn(counts: Mapping[str, float], seconds: Mapping[str, float], *, iteration: int, last: int, shards: int) -> str:
    """What an iteration's shards drew, once all of them are there, and how fast."""
    told = [f"iteration {iteration} of {last}: {shards} of {shards} shards done"]
    if tokens := int(counts["tokens_generated"]):
        rate = tokens / max(seconds["generate"], 1e-9)
        told.append(f"{int(counts['responses']):,} responses, {tokens:,} tokens at {rate:,.0f} a second")
    return ", ".join(told)


def standing(history: pd.DataFrame, last: int) -> str:
    """Where a run stands: its newest iteration of those up to `last`, what came of it, and the time to go."""
    row = history.iloc[-1]
    count, seconds = int(row["iteration"]), history[[f"seconds_{step}" for step in TIMED]].sum(axis=1)
    told = [f"iteration {count} of {last}"]
    if not math.isnan(row["win_rate"]):
        told.append(f"win rate {row['win_rate']:.3f} ({row['win_rate_low']:.3f} to {row['win_rate_high']:.3f})")
    told.append(f"took {duration(float(seconds.iloc[-1]))}")
    if count < last:
        told.append(f"about {duration(float(seconds.mean()) * (last - count))} of work to go")
    return ", ".join(told)


def against_reference(history: pd.DataFrame) -> str:
    """How the last policy evaluated does against the reference, with its 95% interval."""
    last = evaluated(history).iloc[-1]
    rate, low, high = (100 * float(last[name]) for name in ("win_rate", "win_rate_low", "win_rate_high"))
    count = int(last["iteration"])
    fact = (
        f"After {count} iteration{'s' * (count != 1)}, the policy's win rate against the reference is "
        f"{rate:.1f}% (95% interval {low:.1f} to {high:.1f}%)"
    )
    if low <= 50 <= high:
        return f"{fact}: no difference that this evaluation can show."
    side = "better: {:.1f} points above even" if rate > 50 else "worse: {:.1f} points below even"
    return f"{fact}. It is {side.format(abs(rate - 50))}."


def summary_table(history: pd.DataFrame) -> str:
    """The history as an aligned table, one line per iteration; then text, benchmarks, and parts and groups, if known.

    KL is in nats per response, length in tokens, time the sum over the iteration's steps.
    """
    rows = benchmark_rows(history)
    benchmarks = aligned(benchmark_headers(history), rows, labels=2) if rows else None
    tables = [aligned(HEADERS, summary_rows(history), labels=1), guards_report.text(history), benchmarks]
    tables.append(parts_report.text(history))
    return "\n\n".join(table for table in tables if table)


def benchmark_headers(history: pd.DataFrame) -> list[str]:
    """What stands above the cells of `benchmark_rows`."""
    return ["task", "metric", "reference", *(f"iteration {count}" for count in evaluated(history)["iteration"])]


def benchmark_rows(history: pd.DataFrame) -> list[list[str]]:
    """Cells for each benchmark: metric, score of the reference, scores after each iteration."""
    tasks = [name for name in history if f"{name}_metric" in history]
    return [
        [
            str(name).removeprefix("task_"),
            str(history[f"{name}_metric"].dropna().iloc[-1]),
            number(history[f"{name}_reference"].dropna().iloc[-1], ".3f"),
            *(number(score, ".3f") for score in evaluated(history)[name]),
        ]
        for name in tasks
    ]


def learning_headers(history: pd.DataFrame) -> list[str]:
    """What stands above the cells of `learning_rows`: the share of tied prompts too, where it is known."""
    return [*LEARNING_HEADERS, TIED_HEADER] if "tied" in history else LEARNING_HEADERS


def learning_rows(history: pd.DataFrame) -> list[list[str]]:
    """Cells under `learning_headers` for each iteration of which something is known; log-probs and KL in nats."""
    if "risk_before" not in history:
        return []
    known = [name for name in ("risk_before", "tied") if name in history]
    measured = history[history[known].notna().any(axis=1)]
    passes = [f"risk_{number}" for number in range(1, len(history.columns)) if f"risk_{number}" in history]
    return [
        [
            str(int(row["iteration"])),
            " → ".join(number(risk, ".3g") for risk in _risks(row, passes)),
            *(number(row[f"{side}_{what}"], "+.3g") for side in ("winners", "losers") for what in ("moved", "target")),
            *(number(row[name], ".3g") for name in ("kl_step", "kl_step_token")),
            *(number(row[name], ".1%") for name in known[1:]),
        ]
        for _, row in measured.iterrows()
    ]


def _risks(row: pd.Series, passes: Sequence[str]) -> list[float]:
    """Before training and after each pass; a run that continues from another may have fewer passes than that had."""
    between = [float(row[name]) for name in passes if not math.isnan(row[name])]
    return [float(row["risk_before"]), *(between or [float(row["risk_after"])])]


def engine_sentence(history: pd.DataFrame) -> str | None:
    """How far the engine's log-probs are from the trainer's; None if it sampled with the trainer's forward."""
    if "logp_difference" not in history:
        return None
    worst = history.sort_values("logp_difference", na_position="first").iloc[-1]
    return (
        "Log-probs of the engine and of the trainer differ by at most "
        f"{worst['logp_difference']:.2g} nats per response (iteration {int(worst['iteration'])}); "
        "training uses the trainer's."
    )


def summary_rows(history: pd.DataFrame) -> list[list[str]]:
    """Cells under `HEADERS`, one row per iteration."""
    return [_row(row) for _, row in history.iterrows()]


def _row(row: pd.Series) -> list[str]:
    seconds = sum(float(row[f"seconds_{step}"]) for step in TIMED)
    return [
        str(int(row["iteration"])),
        number(row["win_rate"], ".3f"),
        MISSING if math.isnan(row["win_rate_low"]) else f"{row['win_rate_low']:.3f}-{row['win_rate_high']:.3f}",
        number(row["win_rate_previous"], ".3f"),
        number(row["kl"], ".2f"),
        number(row["reward_mean"], ".3f"),
        number(row["response_length"], ".1f"),
        number(row["truncated"], ".1%"),
        duration(seconds),
    ]
