"""A comparison as text, picture and files."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_comparison import ends, history, two_arms

from components.comparison import analysis, report
from components.comparison.charts import STYLES, comparison_figure
from components.comparison.report import markdown, next_commands, text

DOCS = Path(__file__).parents[2] / "docs"


def reach(results):
    return analysis.to_reach(results, analysis.levels(results, [0.6, 0.8]))


def test_text():
    results = two_arms()
    assert text(results, reach(results)).splitlines() == [
        "arm  win rate  95% interval    KL  reward  samples    time  prompts  seeds",
        "---  --------  ------------  ----  ------  -------  ------  -------  -----",
        "a       0.850   0.215-1.485  2.00   0.250      200  12.0 s       25      2",
        "b       0.700   0.700-0.700  2.00   0.250      400   6.0 s       25      2",
        "",
        "Samples to reach a win rate:",
        "to reach  win rate    a    b",
        "--------  --------  ---  ---",
        "0.6          0.600   50  100",
        "0.8          0.800  167    -",
        "b's end      0.700  100  200",
        "",
        "Time to reach a win rate:",
        "to reach  win rate       a      b",
        "--------  --------  ------  -----",
        "0.6          0.600   3.0 s  1.5 s",
        "0.8          0.800  10.0 s      -",
        "b's end      0.700   6.0 s  3.0 s",
        "",
        "a ends 15.0 points above b (95% interval -48.5 to +78.5, 2 seeds in pairs): "
        "no difference that these seeds can show.",
    ]


def test_one_seed_shows_dashes():
    results = ends(only=[0.55])
    assert text(results, analysis.to_reach(results, analysis.levels(results))).splitlines()[2].split() == [
        *("only", "0.550", "-", "1.00", "0.250", "100", "6.0", "s", "25", "1")
    ]


def test_markdown_tables_have_equal_rows():
    results = two_arms()
    lines = markdown(results, reach(results), title="CompareFlow/1").splitlines()
    assert lines[0] == "# CompareFlow/1"
    assert "![Win rates](comparison.png)" in lines
    assert "| a | 0.850 | 0.215-1.485 | 2.00 | 0.250 | 200 | 12.0 s | 25 | 2 |" in lines
    assert "| 0.8 | 0.800 | 167 | - |" in lines
    assert "| 0.8 | 0.800 | 10.0 s | - |" in lines
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert widths == [10] * 4 + [5] * 10


def test_documents_follow_from_the_recorded_results():
    results = pd.read_csv(DOCS / "comparison.csv")
    reach = analysis.to_reach(results, analysis.levels(results))
    expected = markdown(results, reach, title="Algorithms on the demo's task")
    guide, title, made = (DOCS / "comparison.md").read_text("utf-8").partition("# Algorithms on the demo's task\n")
    assert title + made == expected
    assert "compare:" in guide


def test_the_readme_says_no_more_than_the_recorded_results():
    said = analysis.verdicts(pd.read_csv(DOCS / "comparison.csv"))
    above = {sentence.partition(" above ")[2].split()[0]: sentence.endswith(": better.") for sentence in said}
    apart, alike = (
        dict.fromkeys(("wind-40", "jbond", "dpo", "grpo"), True),
        dict.fromkeys(("wind", "sppo", "bond"), False),
    )
    assert above == apart | alike
    readme = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    assert "ends above J-BOND, DPO and GRPO, but not measurably above SPPO and best-of-K distillation" in readme


def test_commands_are_words_of_a_shell():
    card, files, code = (
        shlex.split(line.partition("  ")[2])  # behind what the command is for
        for line in next_commands("flows/compare_flow.py", "CompareFlow", "12").splitlines()
    )
    assert card == ["python", "flows/compare_flow.py", "card", "view", "12/end"]
    assert files == ["wind", "compare", "CompareFlow/12", "comparison"]
    assert code[:2] == ["python", "-c"]
    assert compile(code[2], "results", "exec")


def test_files(tmp_path):
    results = two_arms()
    report.write(results, reach(results), tmp_path / "new", title="CompareFlow/1")
    report.write(results, reach(results), tmp_path / "new", title="CompareFlow/2")  # over the older ones
    folder = tmp_path / "new"
    assert {path.name for path in folder.iterdir()} == {"comparison.csv", "comparison.png", "comparison.md"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "comparison.csv"), results)
    assert (folder / "comparison.md").read_text().startswith("# CompareFlow/2\n")
    image = Image.open(folder / "comparison.png").convert("RGB")
    assert image.width >= 1000
    assert np.asarray(image)[::5, ::5].std() > 5  # not blank


def arms(count):
    return analysis.tidy([(f"arm{i}", seed, history([0.6, 0.7 + seed / 10])) for i in range(count) for seed in (0, 1)])


def test_the_figure_shows_each_arm_against_samples_time_and_kl():
    panels = comparison_figure(two_arms()).axes
    drawn = [[line.get_xydata().tolist() for line in panel.lines if line.get_marker() != "None"] for panel in panels]
    rates = [0.5, 0.7, 0.85], [0.5, 0.7, 0.7]
    for panel, xs in zip(
        drawn, [([0, 100, 200], [0, 200, 400]), ([0, 6, 12], [0, 3, 6]), ([0, 1, 2], [0, 1, 2])], strict=True
    ):
        assert [np.transpose(points)[0].tolist() for points in panel] == list(xs)
        assert [np.transpose(points)[1].tolist() for points in panel] == [pytest.approx(rate) for rate in rates]
    band = panels[0].collections[0].get_paths()[0].vertices
    assert sorted(set(band[band[:, 0] == 200][:, 1])) == pytest.approx([0.8, 0.9])


@pytest.mark.thorough(but=["8"])
@pytest.mark.parametrize("count", [1, 8, 10])
def test_arms_are_told_apart_by_colour_and_marker(count):
    figure = comparison_figure(arms(count))
    lines = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == count
    assert len({line.get_color() for line in lines}) == min(count, len(STYLES))
    (legend,) = figure.legends
    assert [label.get_text() for label in legend.get_texts()] == [f"arm{i}" for i in range(count)]
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_hours_are_not_shown_in_seconds():
    results = analysis.tidy([("a", 0, history([0.6], seconds=(3600.0, 3600.0, 3600.0)))])
    panel = comparison_figure(results).axes[1]
    assert panel.get_xlabel() == "hours of generate, score and train"
    assert next(line for line in panel.lines if line.get_marker() != "None").get_xdata().tolist() == [0, 3]
