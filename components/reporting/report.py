"""The result of a run as plain text, for the terminal and the report card."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.training import learning

if TYPE_CHECKING:
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
MISSING = "-"
LESS_MEMORY = {  # by kind of step: how its tasks need less
    "generate": "raise prompts.shards or lower generation.max_new_tokens, run fewer tasks at once (--max-workers), or ",
    "score": "raise prompts.shards, run fewer tasks at once (--max-workers), or ",
    "train": "lower training.micro_batch_size, or ",
    "evaluate": "lower prompts.held_out or evaluation.responses, or ",
}


def verdict(history: pd.DataFrame) -> str:
    """One sentence: how the last policy does against the reference, with its 95% interval; and what training warned."""
    return "\n\n".join(text for text in (_against_reference(history), learning.told(history)) if text)


def _against_reference(history: pd.DataFrame) -> str:
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


def evaluated(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of the iterations after which the policy was evaluated."""
    return history[history["win_rate"].notna()] if "win_rate" in history else history


def summary_table(history: pd.DataFrame) -> str:
    """The history as an aligned table, one line per iteration; then benchmarks, and parts and groups, if there are any.

    KL is in nats per response, length in tokens, time the sum over the iteration's steps.
    """
    from components.reporting import parts_report as parts

    rows = benchmark_rows(history)
    benchmarks = aligned(benchmark_headers(history), rows, labels=2) if rows else None
    tables = [aligned(HEADERS, summary_rows(history)), benchmarks, parts.text(history)]
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
    """Before training and after each pass; a run that goes on from another may have fewer passes than that had."""
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


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], *, labels: int = 0) -> str:
    """A table as text; the first `labels` columns stand to the left, figures to the right."""
    table = [headers, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    table.insert(1, ["-" * width for width in widths])
    sides = ["<" if column < labels else ">" for column in range(len(headers))]
    lines = [[f"{cell:{side}{w}}" for cell, side, w in zip(row, sides, widths, strict=True)] for row in table]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def summary_rows(history: pd.DataFrame) -> list[list[str]]:
    """Cells under `HEADERS`, one row per iteration."""
    return [_row(row) for _, row in history.iterrows()]


def next_commands(flow_file: str, flow: str, run_id: str, folder: str | None = None) -> str:
    """The commands that show a finished run: its report card, its final policy, its history; see `command_lines`."""
    history = (
        f'from metaflow import Run, namespace; namespace(None); print(Run("{flow}/{run_id}").data.history.to_string())'
    )
    commands = [
        ("see the report", ["python", flow_file, "card", "view", f"{run_id}/end"]),
        ("export the policy", ["python", "-m", "components.export", f"{flow}/{run_id}", "exported"]),
        ("read the history", ["python", "-c", history]),
    ]
    return command_lines(commands, folder)


def command_lines(commands: Sequence[tuple[str, Sequence[str]]], folder: str | None = None) -> str:
    """Purposes and, beside them, the commands as one types them; those that need to be in `folder` go there first."""
    width = max(len(purpose) for purpose, _ in commands)
    return "\n".join(f"{purpose.ljust(width)}  {command_line(words, folder)}" for purpose, words in commands)


def command_line(words: Sequence[str], folder: str | None = None) -> str:
    """A command as one types it, after going to `folder` if there is one."""
    return f"cd {shlex.quote(folder)} && {shlex.join(words)}" if folder else shlex.join(words)


def resume_command(flow_file: str, run_id: str, options: Sequence[str] = (), folder: str | None = None) -> str:
    """The command that goes on where a run failed. It names the run: a bare `resume` may pick another.

    Args:
        flow_file: path of the flow.
        run_id: the failed run.
        options: of the flow itself, such as --datastore s3.
        folder: where to go first, if the datastore is found only there.
    """
    return command_line(["python", flow_file, *options, "resume", "--origin-run-id", run_id], folder)


def kind_of(step: str) -> str:
    """Kind of a step: its name without an iteration."""
    return re.sub(r"_\d+$", "", step)


def killed(step: str) -> str:
    """What to do about a task of `step` that ended without an error of its own."""
    kind = kind_of(step)
    return (
        f"A task of {step} was killed from outside. If nobody did so, the machine had no memory left for it: "
        f"{LESS_MEMORY.get(kind, '')}raise resources.{kind}.memory where a cluster runs it."
    )


def _row(row: pd.Series) -> list[str]:
    seconds = sum(float(row[f"seconds_{step}"]) for step in ("generate", "score", "train", "evaluate"))
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


def number(value: float, form: str) -> str:
    """In this format; a dash for NaN."""
    return MISSING if math.isnan(value) else format(float(value), form)


def duration(seconds: float) -> str:
    """Such as `8.4 s`, `12 min 05 s` or `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
