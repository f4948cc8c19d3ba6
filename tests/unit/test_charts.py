import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.reporting.charts import history_figure, save_png

WIN_RATE, PREVIOUS, KL, SECONDS, REWARD, LENGTH = (0, 3, 1, 4, 2, 5)  # places of the panels
STEPS = ("generate", "score", "train", "evaluate")


def history(iterations, **changed):
    t = np.arange(1, iterations + 1)
    rate = 0.5 + 0.1 * t / iterations
    columns = {
        "iteration": t,
        "win_rate": rate,
        "win_rate_low": rate - 0.05,
        "win_rate_high": rate + 0.05,
        "win_rate_previous": np.full(iterations, 0.55),
        "kl": 0.25 * t,
        "reward_mean": 1.0 + t,
        "response_length": np.full(iterations, 20.0),
        "truncated": np.full(iterations, 0.25),
        "seconds_generate": np.full(iterations, 4.0),
        "seconds_score": np.full(iterations, 1.0),
        "seconds_train": np.full(iterations, 10.0),
        "seconds_evaluate": np.full(iterations, 3.0),
    }
    return pd.DataFrame(columns | changed)


def panels(*args, **kwargs):
    return history_figure(*args, **kwargs).axes


def points(panel):
    """Of the panel's first line."""
    return np.asarray(panel.lines[0].get_xydata()).tolist()


@pytest.mark.thorough(but=["3"])
@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_every_length_of_run_is_drawn_at_readme_width(tmp_path, iterations):
    save_png(history_figure(history(iterations), title="A run"), tmp_path / "history.png")
    image = Image.open(tmp_path / "history.png").convert("RGB")
    assert image.width >= 1000
    assert np.asarray(image)[::5, ::5].std() > 5  # not blank


def test_the_reference_is_iteration_zero():
    axes = panels(history(2), reward_reference=0.5)
    assert points(axes[WIN_RATE]) == [[0, 0.5], [1, 0.55], [2, 0.6]]
    assert points(axes[KL]) == [[0, 0], [1, 0.25], [2, 0.5]]
    assert points(axes[REWARD]) == [[0, 0.5], [1, 2], [2, 3]]
    assert points(axes[PREVIOUS]) == [[1, 0.55], [2, 0.55]]


def test_without_its_reward_the_reference_is_left_out_of_the_reward_panel():
    assert points(panels(history(2))[REWARD]) == [[1, 2], [2, 3]]


def test_a_later_part_of_a_history_does_not_begin_at_the_reference():
    part = history(4).iloc[2:]
    assert points(panels(part)[WIN_RATE]) == [[3, 0.575], [4, 0.6]]


def test_iterations_between_evaluations_are_passed_over():
    told = history(4)
    judged = [name for name in told if name != "iteration" and not name.startswith("seconds_")]
    told.loc[[0, 2], judged] = np.nan
    axes = panels(told, reward_reference=0.5)
    assert points(axes[WIN_RATE]) == [[0, 0.5], [2, 0.55], [4, 0.6]]
    assert points(axes[KL]) == [[0, 0], [2, 0.5], [4, 1]]
    assert points(axes[REWARD]) == [[0, 0.5], [2, 3], [4, 5]]
    assert points(axes[PREVIOUS]) == [[2, 0.55], [4, 0.55]]
    assert points(axes[LENGTH]) == [[2, 20], [4, 20]]
    assert len(axes[SECONDS].patches) == 4 * len(STEPS)


def test_the_band_is_the_interval():
    band = panels(history(1))[WIN_RATE].collections[0].get_paths()[0].vertices
    at_one = band[band[:, 0] == 1][:, 1]
    assert at_one.min() == pytest.approx(0.55)
    assert at_one.max() == pytest.approx(0.65)


def test_even_is_marked_and_in_view():
    for place in (WIN_RATE, PREVIOUS):
        panel = panels(history(3))[place]
        low, high = panel.get_ylim()
        assert low < 0.5 < high
        assert any(list(line.get_ydata()) == [0.5, 0.5] for line in panel.lines)


def test_a_judge_without_rewards_is_named():
    panel = panels(history(2, reward_mean=np.nan))[REWARD]
    assert not panel.lines
    assert "compares pairs" in panel.texts[0].get_text()


def test_a_missing_reward_leaves_the_others():
    assert points(panels(history(3, reward_mean=[1.0, np.nan, 2.0]))[REWARD]) == [[1, 1], [3, 2]]


@pytest.mark.parametrize(("factor", "unit"), [(1, "seconds"), (60, "minutes"), (3600, "hours")])
def test_times_are_stacked_in_a_readable_unit(factor, unit):
    seconds = {f"seconds_{s}": v * factor for s, v in zip(STEPS, (4.0, 1.0, 10.0, 3.0), strict=True)}
    panel = panels(history(2, **seconds))[SECONDS]
    assert panel.get_ylabel() == unit
    tops = [patch.get_y() + patch.get_height() for patch in panel.patches if patch.get_x() < 1]
    assert tops == pytest.approx([4, 5, 15, 18])


def test_truncated_responses_are_a_share():
    share = panels(history(2))[-1]
    assert [patch.get_height() for patch in share.patches] == [0.25, 0.25]
    assert share.get_ylim() == (0, 1)


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_iterations_are_whole_numbers(iterations):
    for panel in panels(history(iterations))[:6]:
        ticks = panel.get_xticks()
        assert len(ticks) > 1
        assert all(tick == round(tick) for tick in ticks)
