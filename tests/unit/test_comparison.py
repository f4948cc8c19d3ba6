"""Comparisons: figures of arms over seeds, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.comparison import analysis

ROOT = Path(__file__).parents[2]


def history(win_rates, *, responses=100, seconds=(1.0, 2.0, 3.0), kl=1.0, prompts=25):
    """Of a branch; each iteration draws `responses` and takes `seconds` of generate, score and train."""
    t = np.arange(1, len(win_rates) + 1)
    columns = {
        "iteration": t,
        "win_rate": win_rates,
        "kl": kl * t,
        "reward_mean": np.full(len(t), 0.25),
        "prompts": prompts,
        "responses": responses,
        **dict(zip(analysis.SPENT, seconds, strict=True)),
        "seconds_evaluate": 1000.0,
    }
    return pd.DataFrame(columns)


def two_arms():
    """`a` ends at 0.8 and 0.9, `b` at 0.7 and 0.7; b's samples cost double and its time is half."""
    branches = [
        ("a", 0, history([0.6, 0.8])),
        ("a", 7, history([0.8, 0.9])),
        ("b", 0, history([0.65, 0.7], responses=200, seconds=(1.0, 1.0, 1.0))),
        ("b", 7, history([0.75, 0.7], responses=200, seconds=(1.0, 1.0, 1.0))),
    ]
    return analysis.tidy(branches)


def test_tidy_adds_up_samples_and_time_but_not_evaluation():
    results = two_arms()
    assert list(results.columns[:3]) == ["arm", "seed", "iteration"]
    assert list(results["arm"]) == ["a"] * 4 + ["b"] * 4
    assert list(results["seed"]) == [0, 0, 7, 7] * 2
    assert list(results["samples"]) == [100, 200] * 2 + [200, 400] * 2
    assert list(results["seconds"]) == [6.0, 12.0] * 2 + [3.0, 6.0] * 2


def test_summary():
    """Two seeds, one degree of freedom: 0.85 ± 12.7062·(0.1/√2)/√2 = 0.85 ± 0.63531."""
    rows = analysis.summary(two_arms()).to_dict("records")
    a, b = rows
    assert (a["arm"], a["seeds"], a["prompts"], a["samples"], a["seconds"]) == ("a", 2, 25, 200, 12)
    assert (a["win_rate"], a["kl"], a["reward_mean"]) == pytest.approx((0.85, 2.0, 0.25))
    assert (a["win_rate_low"], a["win_rate_high"]) == pytest.approx((0.85 - 0.63531, 0.85 + 0.63531), abs=1e-5)
    assert (b["win_rate"], b["win_rate_low"], b["win_rate_high"]) == pytest.approx((0.7, 0.7, 0.7))


def test_one_seed_has_no_interval():
    (row,) = analysis.summary(analysis.tidy([("a", 0, history([0.6]))])).to_dict("records")
    assert row["win_rate"] == 0.6
    assert math.isnan(row["win_rate_low"]) and math.isnan(row["win_rate_high"])


def test_curves_pass_over_iterations_without_an_evaluation():
    results = two_arms()
    results.loc[results["iteration"] == 1, "win_rate"] = np.nan
    assert 1 not in analysis.curves(results)["a"].index


def test_curves_begin_at_the_reference():
    curve = analysis.curves(two_arms())["a"]
    assert list(curve.index) == [0, 1, 2]
    assert list(curve["samples"]) == [0, 100, 200]
    assert list(curve["seconds"]) == [0, 6, 12]
    assert list(curve["kl"]) == [0, 1, 2]
    assert list(curve["win_rate"]) == pytest.approx([0.5, 0.7, 0.85])
    assert list(curve["low"]) == [0.5, 0.6, 0.8]
    assert list(curve["high"]) == [0.5, 0.8, 0.9]


def test_to_reach_interpolates_between_evaluations():
    """a: 0.5, 0.7, 0.85 at 0, 100, 200 samples, 0, 6, 12 s. b: 0.5, 0.7, 0.7 at 0, 200, 400 samples, 0, 3, 6 s."""
    reach = analysis.to_reach(two_arms(), {"six": 0.6, "seven": 0.7, "high": 0.775, "never": 0.95})
    assert list(reach["level"]) == ["six"] * 2 + ["seven"] * 2 + ["high"] * 2 + ["never"] * 2
    assert list(reach["arm"]) == ["a", "b"] * 4
    assert list(reach["win_rate"]) == [0.6, 0.6, 0.7, 0.7, 0.775, 0.775, 0.95, 0.95]
    nan = math.nan
    assert list(reach["samples"]) == pytest.approx([50, 100, 100, 200, 150, nan, nan, nan], nan_ok=True)
    assert list(reach["seconds"]) == pytest.approx([3, 1.5, 6, 3, 9, nan, nan, nan], nan_ok=True)


def test_a_level_that_is_lost_again_was_reached():
    results = analysis.tidy([("a", 0, history([0.9, 0.4, 0.95]))])
    assert analysis.to_reach(results, {"x": 0.7})["samples"].tolist() == pytest.approx([50])


def test_levels_are_round_ones_within_reach_and_the_others_ends():
    assert analysis.levels(two_arms()) == pytest.approx(
        {"0.6": 0.6, "0.7": 0.7, "0.8": 0.8, "0.85": 0.85, "b's end": 0.7}
    )
    assert analysis.levels(two_arms(), [0.55, 0.95]) == pytest.approx({"0.55": 0.55, "0.95": 0.95, "b's end": 0.7})


def test_an_arm_that_ends_below_even_sets_no_level():
    results = analysis.tidy([("a", 0, history([0.65])), ("b", 0, history([0.4]))])
    assert analysis.levels(results) == {"0.6": 0.6}


def ends(**win_rates):
    """Results of arms that end at these win rates, one per seed."""
    return analysis.tidy(
        (arm, seed, history([rate])) for arm, rates in win_rates.items() for seed, rate in enumerate(rates)
    )


def test_a_difference_that_all_seeds_show():
    """Differences 0.10, 0.12, 0.14: 0.12 ± 4.30265·0.02/√3 = 0.12 ± 0.04968."""
    results = ends(ours=[0.7, 0.82, 0.74], theirs=[0.6, 0.7, 0.6])
    shown = "(95% interval +7.0 to +17.0, 3 seeds in pairs)"
    assert analysis.verdict(results, "ours", "theirs") == f"ours ends 12.0 points above theirs {shown}: better."
    mirrored = "(95% interval -17.0 to -7.0, 3 seeds in pairs)"
    assert analysis.verdict(results, "theirs", "ours") == f"theirs ends 12.0 points below ours {mirrored}: worse."


def test_a_difference_that_the_seeds_cannot_show():
    """Differences 0.1, -0.05, 0.1: 0.05 ± 4.30265·0.0866/√3 = 0.05 ± 0.2151."""
    results = ends(ours=[0.7, 0.65, 0.8], theirs=[0.6, 0.7, 0.7])
    assert analysis.verdict(results, "ours", "theirs") == (
        "ours ends 5.0 points above theirs (95% interval -16.5 to +26.5, 3 seeds in pairs): "
        "no difference that these seeds can show."
    )


def test_one_seed_gives_no_verdict():
    said = analysis.verdict(ends(ours=[0.7], theirs=[0.6]), "ours", "theirs")
    assert said == "ours ends 10.0 points above theirs with the one seed that was run: no interval, so no verdict."


def test_an_arm_without_win_rates_is_not_known():
    """Nor is it the best one, though it comes first."""
    nan = math.nan
    arms = [("a", 0, [nan]), ("a", 1, [nan]), ("b", 0, [0.6]), ("b", 1, [0.8]), ("c", 0, [0.5]), ("c", 1, [nan])]
    results = analysis.tidy([(arm, seed, history(rates)) for arm, seed, rates in arms])
    first, second = analysis.verdicts(results)
    assert first == "b against a: not known, since no seed has a final win rate of both."
    assert second.startswith("b ends 10.0 points above c")
    assert analysis.verdict(results, "a", "c") == "a against c: not known, since no seed has a final win rate of both."
    everywhere = results.assign(win_rate=nan)
    assert all("not known" in line for line in analysis.verdicts(everywhere))


def test_the_best_arm_is_told_apart_from_each_other():
    results = ends(low=[0.6, 0.61], high=[0.8, 0.81], middle=[0.7, 0.7])
    assert [sentence.split(" (")[0] for sentence in analysis.verdicts(results)] == [
        "high ends 20.0 points above low",
        "high ends 10.5 points above middle",
    ]
    assert analysis.verdicts(ends(alone=[0.6])) == []
    assert analysis.best(ends(first=[0.6], second=[0.6])) == "first"


def test_three_arms_are_three_pairs():
    """Differences 0.10, 0.12, 0.14 as above, but t(2) for 1 - 0.05/3 is 7.6488: 0.12 ± 7.6488·0.02/√3 = ± 0.08832."""
    results = ends(ours=[0.7, 0.82, 0.74], theirs=[0.6, 0.7, 0.6], third=[0.1, 0.1, 0.1])
    shown = "(95% interval for all 3 pairs of arms at once +3.2 to +20.8, 3 seeds in pairs)"
    assert analysis.verdict(results, "ours", "theirs") == f"ours ends 12.0 points above theirs {shown}: better."


def test_what_one_pair_alone_would_show_is_not_enough_among_many():
    """wind-best and sppo of docs/comparison.csv: 1.5 points, standard error 0.4, t = 4; t(4) is 2.78 for 0.95, 7.39 for
    1 - 0.05/28."""
    finals = pd.read_csv(ROOT / "docs" / "comparison.csv").groupby(["arm", "seed"]).tail(1)
    rates = finals.pivot_table(index="seed", columns="arm", values="win_rate")
    difference = rates["wind-best"] - rates["sppo"]
    assert 2.78 < difference.mean() / (difference.std() / math.sqrt(5)) < 7.39
    said = {line.split(" (")[0]: line for line in analysis.verdicts(pd.read_csv(ROOT / "docs" / "comparison.csv"))}
    assert said["wind-best ends 1.5 points above sppo"].endswith("no difference that these seeds can show.")


def equal_arms(rng, arms, seeds):
    """Final results of arms that differ by chance only; a seed has a part that all its arms share."""
    rates = 0.8 + 0.01 * rng.standard_normal((arms, seeds)) + 0.01 * rng.standard_normal(seeds)
    rows = pd.MultiIndex.from_product([[f"arm{i}" for i in range(arms)], range(seeds)], names=["arm", "seed"])
    table = pd.DataFrame({"win_rate": rates.ravel()}, index=rows).reset_index()
    return table.assign(iteration=1, prompts=1, samples=1, seconds=1.0, kl=1.0, reward_mean=0.0)


@pytest.mark.thorough
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_of_seven_equal_arms_few_tables_call_one_better(seeds):
    """At most 5 % of tables may; with an interval of 95 % for each pair it is about 40 %."""
    rng = np.random.default_rng(seeds)
    tables = 200
    better = sum(any("better" in line for line in analysis.verdicts(equal_arms(rng, 7, seeds))) for _ in range(tables))
    assert better <= 0.05 * tables
