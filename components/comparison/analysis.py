"""Algorithms side by side: what each reached, what it cost, and what the seeds can tell apart.

Win rates are against the reference on the held-out prompts. All branches share the base policy and these prompts, so
intervals over seeds tell how far sampling and training vary, not how another base policy would do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from components.evaluation.intervals import interval
from components.evaluation.parts import evaluated

LEVELS = (0.6, 0.7, 0.8, 0.85, 0.9)
SPENT = ["seconds_generate", "seconds_score", "seconds_train"]  # evaluation only measures


def tidy(histories: Iterable[tuple[str, int, pd.DataFrame]]) -> pd.DataFrame:
    """One row per arm, seed and iteration.

    Args:
        histories: arm, seed and history of each branch.

    Returns:
        The histories' columns after `arm` and `seed`, and at their end `samples`, all responses drawn for training up
        to there, and `seconds`, the time of generate, score and train up to there.
    """
    parts = []
    for arm, seed, history in histories:
        part = history.copy()
        part.insert(0, "arm", arm)
        part.insert(1, "seed", seed)
        part["samples"] = history["responses"].cumsum()
        part["seconds"] = history[SPENT].sum(axis=1).cumsum()
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def final(results: pd.DataFrame) -> pd.DataFrame:
    """The last iteration of each branch."""
    return results.groupby(["arm", "seed"], sort=False).tail(1)


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: means over seeds at the last iteration.

    Columns: arm, seeds (how many), prompts (per iteration), samples, seconds, win_rate with its 95 % t-interval over
    seeds (win_rate_low, win_rate_high; NaN for one seed), kl and reward_mean.
    """
    rows = []
    for arm, runs in final(results).groupby("arm", sort=False):
        mean, low, high = interval(runs["win_rate"].to_numpy())
        means = {name: runs[name].mean() for name in ("prompts", "samples", "seconds", "kl", "reward_mean")}
        rows.append(
            {"arm": arm, "seeds": len(runs), **means, "win_rate": mean, "win_rate_low": low, "win_rate_high": high}
        )
    return pd.DataFrame(rows)


def curves(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each arm's mean curve over seeds, one row per iteration from 0, where the policy is the reference.

    Columns: samples, seconds, kl, win_rate, and the smallest and largest win rate of the seeds, low and high.
    """
    found = {}
    for arm, runs in evaluated(results).groupby("arm", sort=False):
        by_iteration = runs.groupby("iteration")
        curve = by_iteration[["samples", "seconds", "kl", "win_rate"]].mean()
        curve["low"], curve["high"] = by_iteration["win_rate"].min(), by_iteration["win_rate"].max()
        curve.loc[0] = {"samples": 0.0, "seconds": 0.0, "kl": 0.0, "win_rate": 0.5, "low": 0.5, "high": 0.5}
        found[str(arm)] = curve.sort_index()
    return found


def levels(results: pd.DataFrame, given: Sequence[float] | None = None) -> dict[str, float]:
    """Win rates to look for, by name: round ones that an arm reaches, and where each arm but the best one ended.

    `given` replaces the round ones.
    """
    highest = max(curve["win_rate"].max() for curve in curves(results).values())
    chosen = given if given is not None else [level for level in LEVELS if level <= highest]
    ended = summary(results)
    rivals = ended[ended["arm"] != best(results)]
    ends = {str(arm): float(rate) for arm, rate in zip(rivals["arm"], rivals["win_rate"], strict=True)}
    return {f"{level:g}": level for level in chosen} | {
        f"{arm}'s end": rate for arm, rate in ends.items() if rate > 0.5
    }


def best(results: pd.DataFrame) -> str:
    """The arm with the highest final win rate; the first of those that tie, and one without a win rate last."""
    ended = summary(results)
    return str(ended["arm"].iloc[int(ended["win_rate"].fillna(-math.inf).to_numpy().argmax())])


def to_reach(results: pd.DataFrame, wanted: Mapping[str, float]) -> pd.DataFrame:
    """What each arm spent until its mean curve first reached a win rate, linear between evaluations.

    Returns:
        One row per level and arm: level (its name), win_rate, arm, samples, seconds; NaN where it never did.
    """
    rows = []
    for name, level in wanted.items():
        for arm, curve in curves(results).items():
            spent = {cost: _first_reach(curve[cost], curve["win_rate"], level) for cost in ("samples", "seconds")}
            rows.append({"level": name, "win_rate": level, "arm": arm, **spent})
    return pd.DataFrame(rows)


def _first_reach(cost: pd.Series[float], win_rate: pd.Series[float], level: float) -> float:
    x, y = cost.to_numpy(dtype=np.float64), win_rate.to_numpy(dtype=np.float64)
    reached = np.flatnonzero(y >= level)
    if not len(reached):
        return math.nan
    i = int(reached[0])
    return float(x[0] if i == 0 else np.interp(level, y[i - 1 : i + 1], x[i - 1 : i + 1]))


def verdicts(results: pd.DataFrame) -> list[str]:
    """One sentence for the arm with the highest final win rate against each other arm.

    Which arm that is depends on the results, so each pair of arms might have been compared: see `verdict`.
    """
    winner, finals = best(results), _by_seed(results)
    return [_verdict(finals, winner, str(arm)) for arm in results["arm"].unique() if arm != winner]


def verdict(results: pd.DataFrame, arm: str, other: str) -> str:
    """How an arm's final win rate differs from another's, by pairs of equal seed, and what that shows.

    The t-intervals are simultaneous over all pairs of arms (Bonferroni: each holds its difference with probability
    1 - 0.05/pairs). So of arms that are equal, at most 5 % of all tables call one better or worse, however many arms
    there are and whichever of them is the best.
    """
    return _verdict(_by_seed(results), arm, other)


def _by_seed(results: pd.DataFrame) -> pd.DataFrame:
    """Final win rates: a row per seed, a column per arm; none for an arm or a seed without any."""
    return final(results).pivot_table(index="seed", columns="arm", values="win_rate")


def _verdict(finals: pd.DataFrame, arm: str, other: str) -> str:
    known = arm in finals and other in finals  # of arms with a win rate
    differences = (finals[arm] - finals[other]).dropna().to_numpy() if known else np.empty(0)
    if not len(differences):
        return f"{arm} against {other}: not known, since no seed has a final win rate of both."
    pairs = math.comb(finals.shape[1], 2)
    mean, low, high = interval(differences, 1 - 0.05 / pairs)
    side = "above" if mean >= 0 else "below"
    fact = f"{arm} ends {100 * abs(mean):.1f} points {side} {other}"
    if len(differences) < 2:
        return f"{fact} with the one seed that was run: no interval, so no verdict."
    at_once = f" for all {pairs} pairs of arms at once" if pairs > 1 else ""
    shown = f"95% interval{at_once} {100 * low:+.1f} to {100 * high:+.1f}, {len(differences)} seeds in pairs"
    if low <= 0 <= high:
        return f"{fact} ({shown}): no difference that these seeds can show."
    return f"{fact} ({shown}): {'better' if mean > 0 else 'worse'}."
