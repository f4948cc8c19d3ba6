"""Parts and groups in the terminal, on the report card and as pictures."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.reporting.cards import report_card
from components.reporting.charts import save_png
from components.reporting.parts_charts import curves_figure, groups_figure
from components.reporting.parts_report import number_format, short
from components.reporting.report import HEADERS, summary_table

NAN = math.nan


def history(iterations=2):
    t = np.arange(1, iterations + 1)
    columns = {
        "iteration": t,
        "win_rate": 0.6 + 0.01 * t,
        "win_rate_low": 0.55 + 0.01 * t,
        "win_rate_high": 0.65 + 0.01 * t,
        "win_rate_previous": 0.5,
        "kl": 0.5,
        "reward_mean": 0.4,
        "response_length": 20.0,
        "truncated": 0.0,
        **{f"seconds_{step}": 1.0 for step in ("generate", "score", "train", "evaluate")},
    }
    return pd.DataFrame(columns)


def with_parts(iterations=2):
    t = np.arange(1, iterations + 1)
    return history(iterations).assign(
        part_words=20.0 + t,
        part_words_low=NAN,
        part_words_high=NAN,
        part_words_reference=20.0,
        part_words_reference_low=NAN,
        part_words_reference_high=NAN,
        part_met=0.5 + 0.1 * t,
        part_met_low=0.4 + 0.1 * t,
        part_met_high=0.6 + 0.1 * t,
        part_met_reference=0.25,
        part_met_reference_low=0.15,
        part_met_reference_high=0.35,
    )


def with_groups(history, names, *, parts=("met",)):
    """The same in every group, but for the second, of one prompt, whose intervals are not known."""
    added = {}
    for at, name in enumerate(names):
        for column in ["win_rate", *(f"part_{part}" for part in parts)]:
            for bound in ("", "_low", "_high"):
                unknown = at == 1 and bound
                added[f"{column}{bound}[{name}]"] = NAN if unknown else history[f"{column}{bound}"]
                if column != "win_rate":
                    added[f"{column}_reference{bound}[{name}]"] = (
                        NAN if unknown else history[f"{column}_reference{bound}"]
                    )
        added[f"held_out[{name}]"] = 1 if at == 1 else 7
    return pd.concat([history, pd.DataFrame(added, index=history.index)], axis=1).assign(held_out=8)


def test_the_terminals_table():
    lines = summary_table(with_groups(with_parts(), ["long", "short"])).splitlines()
    assert lines[5:] == [
        "part      group           prompts       reference     iteration 1     iteration 2",
        "--------  --------------  -------  --------------  --------------  --------------",
        "win rate  (all)                 8               -           0.610           0.620",
        "win rate  (95% interval)                        -  0.560 to 0.660  0.570 to 0.670",
        "win rate  long                  7               -           0.610           0.620",
        "win rate  short                 1               -           0.610           0.620",
        "words     (all)                 8            20.0            21.0            22.0",
        "words     (95% interval)                        -               -               -",
        "met       (all)                 8           0.250           0.600           0.700",
        "met       (95% interval)           0.150 to 0.350  0.500 to 0.700  0.600 to 0.800",
        "met       long                  7           0.250           0.600           0.700",
        "met       short                 1           0.250           0.600           0.700",
    ]


def test_the_terminal_shows_the_last_iterations_of_many():
    lines = summary_table(with_parts(12)).splitlines()
    assert [cell.strip() for cell in lines[15].split("  ") if "iteration" in cell] == [
        "iteration 10",
        "iteration 11",
        "iteration 12",
    ]
    assert lines[-1] == "(the last 3 iterations; `history` has all)"


@pytest.mark.parametrize("name", ["$a_$", "$$", r"$\\frac$", "$5 to $6"])
def test_names_with_dollars_are_no_formulas(name):
    figure = groups_figure(with_groups(with_parts(), [name, "short"]))
    figure.draw_without_rendering()
    assert f"{name} (" in figure.axes[0].get_yticklabels()[0].get_text()


def test_without_parts_and_groups_nothing_is_added():
    assert len(summary_table(history()).splitlines()) == 4
    assert curves_figure(history()) is None
    assert groups_figure(history()) is None
    assert [part.render()["type"] for part in report_card(history(), [], {}, title="")].count("table") == 1


@pytest.mark.parametrize(
    ("largest", "value", "shown"),
    [
        (1.0, 0.5, "0.500"),
        (0.0, 0.0, "0.00"),
        (1.5, -0.0001, "0.00"),
        (150.0, 149.6, "150"),
        (12345.6, 12345.6, "12,346"),
        (0.0123, 0.00456, "0.0046"),
        (3e-7, 3e-7, "3.00e-07"),
        (2.5e8, 2.5e8, "2.50e+08"),
    ],
)
def test_numbers_of_a_part_have_equally_many_decimals(largest, value, shown):
    assert format(value, number_format(largest)) == shown


def test_long_names_keep_beginning_and_end():
    assert short("keywords:existence") == "keywords:existence"
    assert short("length_constraints:nth_paragraph_first_word") == "length_constrain…graph_first_word"


def card(history):
    return [part.render() for part in report_card(history, [], {"seed": 1}, title="Run")]


@pytest.mark.thorough
def test_the_card_has_pictures_and_the_whole_table():
    names = ["<b>long</b>", "x" * 50]
    parts = card(with_groups(with_parts(12), names))
    summary, table = [part for part in parts if part["type"] == "table"]
    assert summary["columns"] == HEADERS
    assert table["columns"] == ["part", "group", "prompts", "reference", *(f"iteration {t}" for t in range(1, 13))]
    assert [row[:3] for row in table["data"]][2:4] == [["win rate", names[0], "7"], ["win rate", short(names[1]), "1"]]
    pictures = [part for part in parts if part["type"] == "image"]
    assert len(pictures) == 3
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture["src"].partition(",")[2]))).verify()
    headings = [part["source"] for part in parts if part["type"] == "markdown"]
    assert "## Parts and groups" in headings
    assert not any("<b>" in text for text in headings)


def test_an_example_shows_what_its_rewards_are_made_of():
    example = {"prompt": "Hi", "answer": None, "reference_response": "no", "reference_reward": 0.25}
    example |= {"final_response": "yes", "final_reward": 1.125, "reference_parts": {"met": 0.0, "words": 0.25}}
    parts = [part.render() for part in report_card(with_parts(), [example], {}, title="")]
    (table,) = [part for part in parts if part["type"] == "table" and "prompt" in part["columns"]]
    assert table["data"] == [["Hi", "no", "0.25 (met 0, words 0.25)", "yes", "1.12"]]


def test_a_curve_begins_at_the_reference():
    words, met = curves_figure(with_parts()).axes
    assert (words.get_title(loc="left"), met.get_title(loc="left")) == ("words", "met")
    assert np.asarray(met.lines[0].get_xydata()).tolist() == [[0, 0.25], [1, 0.6], [2, 0.7]]
    assert met.get_title(loc="right") == "0.700"
    band = met.collections[0].get_paths()[0].vertices
    at_zero = band[band[:, 0] == 0][:, 1]
    assert (at_zero.min(), at_zero.max()) == (0.15, 0.35)
    assert words.get_legend() is None  # no interval is known


def test_bars_of_each_group_before_and_after():
    """The first group on top; the interval of the second is not known."""
    rate, met = groups_figure(with_groups(with_parts(), ["long", "short"])).axes
    assert [bar.get_width() for bar in met.patches] == pytest.approx([0.25, 0.25, 0.7, 0.7])
    assert [bar.get_width() for bar in rate.patches] == pytest.approx([0.62, 0.62])
    assert [label.get_text() for label in rate.get_yticklabels()] == ["long (7)", "short (1)"]
    assert rate.get_ylim()[0] > rate.get_ylim()[1]
    whiskers = [segment for lines in met.collections for segment in lines.get_segments()]
    assert [segment[:, 0].tolist() for segment in whiskers if len(segment)] == [
        pytest.approx([0.15, 0.35]),
        pytest.approx([0.6, 0.8]),
    ]


def test_huge_intervals_do_not_shrink_the_bars():
    """Bars from 0 to 0.7: the axis ends 40 % of that beyond them."""
    wide = with_groups(with_parts(), ["long", "short"])
    wide["part_met_low[long]"], wide["part_met_high[long]"] = -20.0, 30.0
    low, high = groups_figure(wide).axes[1].get_xlim()
    assert low == pytest.approx(-0.28)
    assert high == pytest.approx(0.98 + 0.02 * 1.26)


@pytest.mark.thorough
@pytest.mark.parametrize(("iterations", "groups"), [(1, 1), (3, 13), (40, 50)])
def test_every_size_is_drawn(tmp_path, iterations, groups):
    wide = with_groups(with_parts(iterations), [f"group {i}" for i in range(groups)], parts=("met", "words"))
    for name, figure in (("curves", curves_figure(wide)), ("groups", groups_figure(wide))):
        save_png(figure, tmp_path / f"{name}.png")
        image = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert image[::5, ::5].std() > 5  # not blank


def test_parts_that_are_all_zero_or_equal_are_drawn(tmp_path):
    flat = with_groups(with_parts().assign(**{n: 0.0 for n in with_parts() if n.startswith("part_")}), ["a", "b"])
    for figure in (curves_figure(flat), groups_figure(flat)):
        save_png(figure, tmp_path / "flat.png")
