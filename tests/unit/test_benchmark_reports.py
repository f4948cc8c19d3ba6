"""What history, table and report say of benchmarks."""

from __future__ import annotations

import pandas as pd
import pytest

from components.evaluation.metrics import HISTORY_COLUMNS, Benchmark, Evaluated, WinRate, history_row
from components.reporting.cards import report_card
from components.reporting.report import summary_table

# Of lm-eval's own code and of what it imports
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def row(iteration, *tasks):
    evaluated = Evaluated(
        rollout={},
        against_reference=WinRate(0.6, 0.5, 0.7),
        against_previous=WinRate(0.6, 0.5, 0.7),
        kl=1.0,
        reward=0.5,
        response_length=3.0,
        truncated=0.0,
        benchmarks=tasks,
    )
    counts = dict.fromkeys(("prompts", "responses", "tokens_generated", "micro_batch_size"), 4)
    seconds = dict.fromkeys(("generate", "score", "train", "evaluate"), 1.0)
    return history_row(iteration=iteration, algorithm="wind", evaluated=evaluated, counts=counts, seconds=seconds)


def test_history_has_columns_for_what_is_configured_and_no_others():
    assert tuple(row(1).columns) == HISTORY_COLUMNS
    found = row(1, Benchmark("gsm8k", "exact_match,strict-match", 0.25, 0.5))
    assert tuple(found.columns) == (*HISTORY_COLUMNS, "task_gsm8k", "task_gsm8k_reference", "task_gsm8k_metric")
    assert found.iloc[0, -3:].tolist() == [0.25, 0.5, "exact_match,strict-match"]


def test_table_and_report_name_task_metric_and_reference():
    """A run that continues from one without the task has no score for its first iterations."""
    history = pd.concat([row(1), row(2, Benchmark("gsm8k", "acc", 0.25, 0.5))], ignore_index=True)
    expected = ["gsm8k", "acc", "0.500", "-", "0.250"]
    assert summary_table(history).splitlines()[-1].split() == expected
    assert summary_table(history).splitlines()[-3].split("  ")[0] == "task"
    assert "task" not in summary_table(row(1))
    tables = [part.render() for part in report_card(history, [], {}, title="Run") if type(part).__name__ == "Table"]
    assert tables[-1]["columns"] == ["task", "metric", "reference", "iteration 1", "iteration 2"]
    assert tables[-1]["data"] == [expected]
    assert len(tables) == 2
    assert len([p for p in report_card(row(1), [], {}, title="Run") if type(p).__name__ == "Table"]) == 1
