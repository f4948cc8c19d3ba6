"""`wind plan --history`: what is no history of one run, by the cell that says so."""

from __future__ import annotations

import math

import pytest

from components.plan.history import read
from components.plan.models import PlanError
from support.plans import HISTORY

ENDS = [(index, end) for index in (True, False) for end in (",\n", ",1\n", ",1,2\n")]  # of rows, not of the header
# What is written, and what the message shows of it: Python, or a reader, takes some of these for numbers.
CELLS = {
    '"1,000"': "'1,000'",
    "0x10": "'0x10'",
    "1_000": "'1_000'",
    "\uff13\uff10\uff10": "'\uff13\uff10\uff10'",
    "\u0663": "'\u0663'",
    "nan": "an empty cell or nan",
    "": "an empty cell or nan",
    "inf": "'inf'",
    "-300": "'-300'",
    "1e16": "'1e16'",
    "1" * 400: f"'{'1' * 199}…",
    "many": "'many'",
}


@pytest.fixture
def refused(tmp_path):
    """What reading such a file says."""

    def run(text):
        (tmp_path / "history.csv").write_text(text, encoding="utf-8")
        with pytest.raises(PlanError) as caught:
            read(tmp_path / "history.csv")
        return str(caught.value)

    return run


def with_cell(column, text):
    """A table of two iterations with `text` in the second one's cell."""
    rows = [["1", "50", "1800", "360", "3600", "100"], ["2", "50", "5400", "360", "3600", "720"]]
    names = ["iteration", "prompts", *(f"seconds_{kind}" for kind in ("generate", "score", "train", "evaluate"))]
    if column not in names:
        names, rows = [*names, column], [[*rows[0], "1"], [*rows[1], ""]]
    rows[1][names.index(column)] = text
    return "\n".join(",".join(row) for row in (names, *rows)) + "\n"


@pytest.mark.parametrize("column", ["iteration", "prompts", "seconds_score", "seconds_evaluate"])
@pytest.mark.parametrize("text", CELLS)
def test_a_bad_cell_is_named(refused, column, text):
    wanted = "number from 0" if column.startswith("seconds") else "whole number from 1"
    assert refused(with_cell(column, text)).partition(": ")[2] == (
        f"column {column}, row 2 below the names: {CELLS[text]} is no {wanted} to 1e+15. Correct it, or write the file "
        "anew."
    )


@pytest.mark.parametrize("column", ["shards", "seconds_loading", "win_rate"])
def test_a_cell_of_a_column_that_may_be_empty(refused, tmp_path, column):
    wanted = "whole number from 1" if column == "shards" else "number from 0"
    for text in ("-1", "\uff11", "many"):
        assert f"column {column}, row 2 below the names: {text!r} is no {wanted}" in refused(with_cell(column, text))
    for text in ("", "nan"):
        (tmp_path / "history.csv").write_text(with_cell(column, text))
        assert math.isnan(read(tmp_path / "history.csv")[column][1])


def test_blanks_round_a_number_mean_nothing(tmp_path):
    (tmp_path / "history.csv").write_text(with_cell("seconds_train", " +3.6e3 "))
    assert read(tmp_path / "history.csv")["seconds_train"].tolist() == [3600, 3600]


@pytest.mark.parametrize("numbers", [[2, 1], [3, 2], [1, 1]])
def test_iterations_must_rise(refused, numbers):
    before, number = numbers
    said = refused(HISTORY.assign(iteration=numbers).to_csv())
    assert f"column iteration, row 2 below the names: {number} comes after {before}, and iterations must rise" in said
    assert "Sort the rows or, if the file holds several runs, leave those of one." in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HISTORY.assign(prompts=[50, -50]).to_csv(), "row 2 below the names: '-50' is no whole number"),
        (HISTORY.assign(seconds_generate=[-1.0, 1.0]).to_csv(), "row 1 below the names: '-1.0' is no number from 0"),
        *((HISTORY.assign(shards=[2, n]).to_csv(), "whole number from 1") for n in (0, -2, 1.5, math.inf, "many")),
        (HISTORY.drop(columns="iteration").to_csv(), "has no column iteration"),
        (HISTORY.assign(iteration=[1, 1.5]).to_csv(), "column iteration, row 2 below the names: '1.5' is no whole"),
        (HISTORY.assign(prompts=[50, 49.5]).to_csv(), "column prompts, row 2 below the names: '49.5' is no whole"),
        (HISTORY.assign(shards=[2, 51]).to_csv(), "shards, row 2 below the names: '51' is more shards than prompts"),
        (HISTORY.assign(seconds_loading=[2160.1, 0]).to_csv(), "row 1 below the names: '2160.1' is more than what"),
        (HISTORY.assign(seconds_loading=[-1, 0]).to_csv(), "row 1 below the names: '-1' is no number from 0"),
        *((HISTORY.to_csv(index=i).replace("\n", end).replace(end, "\n", 1), "more fields") for i, end in ENDS),
        (HISTORY.assign(arm=["wind", "dpo"]).to_csv(), "holds several runs"),
        (HISTORY.assign(arm="wind", seed=[0, 1]).to_csv(), "holds several runs"),
    ],
)
def test_figures_that_no_run_has(refused, text, message):
    assert message in refused(text)


def test_one_branch_of_a_comparison_is_a_run(tmp_path):
    HISTORY.assign(arm="wind", seed=0).to_csv(tmp_path / "comparison.csv")
    assert len(read(tmp_path / "comparison.csv")) == 2
