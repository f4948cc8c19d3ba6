"""What a cell records, and how results are shown: table, figures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.bandit.cards import slope, wind_rates
from components.bandit.config import LabConfig, parse
from components.bandit.figures import convergence_figure, sample_complexity_figure, trajectory_figure
from components.bandit.games import Bandit, PreferenceMatrix, RewardOrder
from components.bandit.laboratory import Cell, cells, play, trajectory
from components.bandit.methods import Bond, Extragradient, SelfPlay, Wind
from components.bandit.report import complexity_sentence, next_commands, summary_rows, summary_table
from components.reporting.charts import save_png

COLUMNS = [
    *("setting", "method", "seed", "iteration", "evaluations"),
    *("gap", "kl_equilibrium", "kl_target", "kl_reference", "win_rate", "reward"),
]
SMALL = """
seeds: [0, 5]
iterations: 4
methods: {wind: {}, bond: {}}
settings:
  reward: {prompts: 2, responses: 6, beta: 0.2}
  cyclic: {prompts: 2, responses: 6, methods: [wind]}
"""


@pytest.fixture(scope="module")
def lab():
    return LabConfig.model_validate(parse(SMALL))


@pytest.fixture(scope="module")
def results(lab):
    return pd.concat([play(lab, cell) for cell in cells(lab)], ignore_index=True)


def test_cells_are_settings_by_methods_by_seeds(lab):
    assert cells(lab) == [
        Cell("reward", "wind", 0),
        Cell("reward", "wind", 5),
        Cell("reward", "bond", 0),
        Cell("reward", "bond", 5),
        Cell("cyclic", "wind", 0),
        Cell("cyclic", "wind", 5),
    ]


def test_results_have_a_row_per_iteration_of_a_cell(lab, results):
    assert list(results.columns) == COLUMNS
    assert len(results) == len(results.drop_duplicates(COLUMNS[:4])) == 6 * 5
    for name in COLUMNS[5:]:
        assert results[name].dtype == "float64"
    assert (results["gap"] >= 0).all()
    assert (results.loc[results["setting"] == "cyclic", "reward"].isna()).all()
    assert play(lab, cells(lab)[0]).equals(results.head(5))


def test_all_methods_of_a_setting_play_the_same_bandit(results):
    starts = results[results["iteration"] == 0].groupby(["setting", "seed"])
    assert (starts["gap"].nunique() == 1).all()
    assert starts["gap"].first().nunique() == 4
    assert (results.loc[results["iteration"] == 0, "win_rate"] - 0.5).abs().max() < 1e-15
    assert (results.loc[results["iteration"] == 0, "kl_reference"] == 0).all()


def test_figures_of_a_trajectory_by_hand():
    """Two responses, the first always wins, uniform reference, beta = 1/2: a log-ratio moves to 1/2 / beta = 1.

    Best of two gives (3/4, 1/4): it wins against the reference 3/4·3/4 + 1/4·1/4 = 5/8, its reward is 3/4·2 + 1/4·1.
    """
    rewards = np.array([[2.0, 1.0]])
    bandit = Bandit(RewardOrder(rewards), np.log([[0.5, 0.5]]), 0.5, rewards)
    rows = trajectory(bandit, Bond(N=2), 1)
    star = math.e / (1 + math.e)
    assert rows["win_rate"].tolist() == pytest.approx([0.5, 0.625], abs=1e-15)
    assert rows["reward"].tolist() == pytest.approx([1.5, 1.75], abs=1e-15)
    assert rows["kl_reference"][1] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-15)
    assert rows["kl_target"].tolist() == pytest.approx([math.log(2), math.log(4 / 3)], abs=1e-12)
    expected = [star * math.log(star / p) + (1 - star) * math.log((1 - star) / (1 - p)) for p in (0.5, 0.75)]
    assert rows["kl_equilibrium"].tolist() == pytest.approx(expected, abs=1e-12)


def test_evaluations_count_win_rates():
    bandit = Bandit(PreferenceMatrix(np.full((1, 2, 2), 0.5)), np.log([[0.5, 0.5]]), 0.5)
    assert trajectory(bandit, Wind(), 3)["evaluations"].tolist() == [0, 1, 2, 3]
    assert trajectory(bandit, Extragradient(), 3)["evaluations"].tolist() == [0, 2, 4, 6]
    assert trajectory(bandit, SelfPlay(), 1)["kl_target"].isna().all()


def test_progress_is_reported():
    bandit = Bandit(PreferenceMatrix(np.full((1, 2, 2), 0.5)), np.log([[0.5, 0.5]]), 0.5)
    calls = []
    trajectory(bandit, Wind(), 2, lambda done, total, **figures: calls.append((done, total, list(figures))))
    assert calls == [(0, 2, ["gap"]), (1, 2, ["gap"]), (2, 2, ["gap"])]


def made_up(gaps, **changed):
    """Results of one method whose gap is given for each seed."""
    rows = [
        {"setting": "reward", "method": "wind", "seed": seed, "iteration": t, "gap": gap}
        for seed, series in enumerate(gaps)
        for t, gap in enumerate(series)
    ]
    figures = {"kl_target": 0.5, "kl_equilibrium": 0.5, "kl_reference": 1.0, "win_rate": 0.75, "reward": math.nan}
    return pd.DataFrame(rows).assign(evaluations=0, **figures | changed)


def test_the_table_has_means_over_seeds_and_the_iteration_of_the_last_seed():
    """The gap is under 1e-6 from iteration 1 with one seed, from 2 with the other; it ends at 1e-8 and 3e-8."""
    rows = summary_rows(made_up([[1, 1e-7, 1e-8], [1, 1e-5, 3e-8]]))
    assert rows == [["reward", "wind", "2.0e-08", "2", "5.0e-01", "1.000", "0.750", "-"]]


@pytest.mark.parametrize(
    ("gaps", "reached"),
    [([[1, 1e-7, 1e-5]], "-"), ([[1e-7, 1e-5, 1e-7]], "2"), ([[1e-7, 1e-7]], "0"), ([[1.0]], "-")],
)
def test_a_gap_counts_as_reached_when_it_stays(gaps, reached):
    assert summary_rows(made_up(gaps))[0][3] == reached


def test_the_table_is_aligned_and_in_the_order_of_the_config(results):
    head, rule, *rows = summary_table(results).splitlines()
    assert [row.split()[:2] for row in rows] == [["reward", "wind"], ["reward", "bond"], ["cyclic", "wind"]]
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    assert len(head) < 110


def test_commands_and_sentence():
    commands = next_commands("flows/bandit_flow.py", "BanditFlow", "12")
    assert "python flows/bandit_flow.py card view 12/end" in commands
    assert 'Run("BanditFlow/12").data.results' in commands
    assert complexity_sentence(-0.487) == (
        "The error of one sampled iteration falls as M^(-0.49) in the number of samples; M^(-0.50) is expected."
    )


def test_winds_bound_comes_from_eta_and_each_settings_beta(lab):
    assert wind_rates(lab) == {"reward": pytest.approx(1.2), "cyclic": pytest.approx(1.1)}
    assert wind_rates(LabConfig.model_validate(parse("methods: {bond: {}}"))) == {}


def test_the_slope_is_that_of_the_mean_over_seeds_and_repetitions():
    """Means 8, 4 and 2 at 1, 4 and 16 samples."""
    errors = pd.DataFrame({"samples": [1, 1, 4, 4, 16, 16], "seed": [0, 1] * 3, "error": [7, 9, 3, 5, 1, 3.0]})
    assert slope(errors) == pytest.approx(-0.5)


def line(panel, label):
    [found] = [line for line in panel.lines if line.get_label() == label]
    return found


def test_convergence_has_a_column_per_setting_and_a_line_per_method(lab, results):
    axes = convergence_figure(results, rates=wind_rates(lab)).axes
    assert [panel.get_title(loc="left") for panel in axes] == ["reward", "cyclic"] * 2
    assert {panel.get_yscale() for panel in axes} == {"log"}
    drawn = [[line.get_label() for line in panel.lines if len(line.get_xdata())] for panel in axes]
    assert drawn[0] == ["wind", "bond", "(1 + beta·eta)^-t"]
    assert drawn[1] == ["wind", "(1 + beta·eta)^-t"]
    middle = results.query("setting == 'reward' and method == 'wind'").groupby("iteration")["gap"].median()
    assert line(axes[2], "wind").get_ydata() == pytest.approx(middle.to_numpy())
    bound = line(axes[0], "(1 + beta·eta)^-t").get_ydata()
    assert bound[1:] / bound[:-1] == pytest.approx(1 / 1.2)


def test_figures_below_double_precision_are_not_drawn():
    figure = convergence_figure(made_up([[1.0, 1e-10, 1e-30, 0.0]]))
    drawn = line(figure.axes[1], "wind").get_ydata()
    assert drawn[:2] == pytest.approx([1, 1e-10])
    assert np.isnan(drawn[2:]).all()
    assert figure.axes[1].get_ylim()[0] >= 1e-16


def test_the_trajectory_says_where_there_are_no_rewards(results):
    axes = trajectory_figure(results).axes
    assert not axes[2].texts
    assert "no rewards" in axes[3].texts[0].get_text()
    assert {panel.get_ylabel() for panel in axes} == {
        "win rate vs reference",
        "expected reward",
        "KL(policy || reference), nats",
    }


def test_without_any_rewards_their_panel_is_left_out(results):
    axes = trajectory_figure(results[results["setting"] == "cyclic"]).axes
    assert [panel.get_ylabel() for panel in axes] == ["win rate vs reference", "KL(policy || reference), nats"]


def test_methods_have_colours_of_their_own_in_all_panels(results):
    figure = trajectory_figure(results)
    wind = {line(panel, "wind").get_color() for panel in figure.axes if panel.lines}
    assert len(wind) == 1
    assert line(figure.axes[0], "bond").get_color() not in wind
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["wind", "bond"]


@pytest.mark.thorough
def test_every_figure_is_drawn(tmp_path, lab, results):
    errors = pd.DataFrame({"samples": [64, 256], "seed": 0, "repeat": 0, "error": [0.2, 0.1]})
    figures = [
        convergence_figure(results, rates=wind_rates(lab)),
        trajectory_figure(results),
        sample_complexity_figure(errors),
    ]
    for figure in figures:
        save_png(figure, tmp_path / "figure.png")
        image = Image.open(tmp_path / "figure.png").convert("RGB")
        assert image.width >= 800
        assert np.asarray(image)[::5, ::5].std() > 5  # not blank
