"""Text and the win rate at equal length in reports: of new histories, of old ones, and of an old run that continues."""

from __future__ import annotations

import math

import pandas as pd

from components.evaluation import text
from components.evaluation.metrics import HISTORY_COLUMNS, Evaluated, WinRate, history_row
from components.reporting import guards_report
from components.reporting.cards import report_card
from components.reporting.report import summary_table, verdict

FIGURES = {
    "response_length_reference": 20.0,
    "truncated_reference": 0.125,
    "distinct_1": 0.5,
    "distinct_1_reference": 0.75,
    "repetition": 0.25,
    "repetition_reference": 0.0,
}
HINT = "Responses repeat themselves."


def row(iteration=1, figures=FIGURES, hint=""):
    evaluated = Evaluated(
        rollout={},
        against_reference=WinRate(0.7, 0.65, 0.75),
        against_previous=WinRate(0.6, 0.55, 0.65),
        kl=5.0,
        reward=0.5,
        response_length=40.0,
        truncated=0.5,
        at_equal_length=WinRate(0.55, 0.5, 0.6),
        text=figures,
        text_warnings=hint,
    )
    counts = {"prompts": 8, "responses": 32, "tokens_generated": 100, "micro_batch_size": 4}
    seconds = dict.fromkeys(("generate", "score", "train", "evaluate"), 1.0)
    return history_row(iteration=iteration, algorithm="wind", evaluated=evaluated, counts=counts, seconds=seconds)


def old(iteration=1):
    """A row as runs had it before."""
    added = {"win_rate_lc", "win_rate_lc_low", "win_rate_lc_high", *text.COLUMNS, "text_warnings"}
    return row(iteration)[[name for name in HISTORY_COLUMNS if name not in added]]


def test_columns():
    found = row(hint=HINT).iloc[0]
    assert (found["win_rate_lc"], found["win_rate_lc_low"], found["win_rate_lc_high"]) == (0.55, 0.5, 0.6)
    assert found[list(FIGURES)].to_dict() == FIGURES
    assert math.isnan(found["similarity"])
    assert found["text_warnings"] == HINT


def test_table():
    headers, rows = guards_report.table(row())
    assert headers == ["text", "reference", "iteration 1"]
    assert rows == [
        ["win rate at equal length", "0.500", "0.550"],
        ["(95% interval)", "", "0.500-0.600"],
        ["tokens", "20.0", "40.0"],
        ["truncated", "12.5%", "50.0%"],
        ["distinct-1 within a response", "0.750", "0.500"],
        ["repetition", "0.0%", "25.0%"],
        ["KL per token", "0.000", "0.125"],
    ]


def test_the_terminal_shows_the_last_iterations_within_its_width():
    history = pd.concat([row(iteration) for iteration in range(1, 8)], ignore_index=True)
    table = guards_report.text(history)
    assert table is not None
    assert table.splitlines()[0].split() == [
        "text",
        "reference",
        *(word for t in (5, 6, 7) for word in ("iteration", str(t))),
    ]
    assert table in summary_table(history)
    assert max(map(len, table.splitlines())) <= 100


def test_the_verdict_and_the_card_tell_of_hints():
    history = pd.concat([row(1, hint=HINT), row(2)], ignore_index=True)
    assert verdict(history).endswith(f"\n\nHints at reward hacking in iteration 1: {HINT}")
    shown = [part.render() for part in report_card(history, [], {}, title="")]
    at = next(i for i, part in enumerate(shown) if part.get("source") == "## Text")
    assert shown[at + 1]["columns"] == ["text", "reference", "iteration 1", "iteration 2"]
    assert shown[at + 2]["source"].strip() == f"- Iteration 1: {HINT}"
    assert shown[at + 3]["source"].strip() == guards_report.NOTE


def test_a_history_of_before_is_read():
    history = old()
    assert guards_report.table(history)[1] == []
    assert guards_report.text(history) is None
    assert "Hints" not in verdict(history)
    assert not any(part.render().get("source") == "## Text" for part in report_card(history, [], {}, title=""))


def test_a_run_of_before_continues():
    """Its own iterations have a dash, and its columns stand first; the new ones come behind them."""
    history = pd.concat([old(1), row(2, hint=HINT)], ignore_index=True)
    assert list(history)[: len(old().columns)] == list(old())
    assert set(history) == set(HISTORY_COLUMNS)
    rows = guards_report.table(history)[1]
    assert ["win rate at equal length", "0.500", "-", "0.550"] in rows
    assert ["tokens", "20.0", "40.0", "40.0"] in rows
    assert ["distinct-1 within a response", "0.750", "-", "0.500"] in rows
    assert verdict(history).endswith(f"Hints at reward hacking in iteration 2: {HINT}")
