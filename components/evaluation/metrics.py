"""How good a policy is: win rates on held-out prompts with intervals, KL, lengths; one history row per iteration."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.config.sections import EvaluationConfig
from components.config.steps import TIMED
from components.data.parts import PART
from components.evaluation import text
from components.evaluation.groups import Groups
from components.evaluation.intervals import rate_interval
from components.evaluation.parts import WIN_RATE, Mean, Measure, columns, mean_interval
from components.judges import Judgement
from components.store import Manifest
from components.training import learning

if TYPE_CHECKING:  # most steps need no table
    import pandas as pd

HISTORY_COLUMNS = (
    "iteration", "algorithm", "win_rate", "win_rate_low", "win_rate_high", "win_rate_previous", "kl",
    "reward_mean", "response_length", "prompts", "responses", "truncated", "tokens_generated",
    "seconds_generate", "seconds_score", "seconds_train", "seconds_evaluate", "micro_batch_size",
    "kl_token", *learning.COLUMNS, "tied", "win_rate_lc", "win_rate_lc_low", "win_rate_lc_high", *text.COLUMNS,
    "text_warnings", "warnings",
)  # fmt: skip


@dataclass(frozen=True)
class WinRate:
    """Mean over prompts, with the 95 % interval of that mean."""

    mean: float
    low: float
    high: float


UNKNOWN = WinRate(math.nan, math.nan, math.nan)


def win_rate(preference: NDArray[np.float64], ours: slice, theirs: slice) -> WinRate:
    """Win rate of some responses of each prompt against others.

    The prompt is the unit of the interval, `intervals.rate_interval`: responses to one prompt are not independent.

    Args:
        preference: (n, K, K), P(y_i > y_j).
        ours: the columns of the policy that is judged.
        theirs: the columns of its rival.
    """
    per_prompt = preference[:, ours, theirs].mean((1, 2))
    return WinRate(float(per_prompt.mean()), *rate_interval(per_prompt))


def measure(judgement: Judgement, groups: Groups, ours: slice, theirs: slice) -> tuple[Measure, ...]:
    """Means of the judge's parts over all prompts, and of the win rate and the parts over each group of them.

    `ours` and `theirs` as in `win_rate`; theirs are the reference's.
    """
    measures = []
    for group, rows in groups.items():
        rate = win_rate(judgement.preference[rows], ours, theirs)
        measures.append(Measure(WIN_RATE, group, len(rows), Mean(rate.mean, rate.low, rate.high)))
    places: list[tuple[str | None, NDArray[np.int64]]] = [(None, np.arange(len(judgement.preference))), *groups.items()]
    for name, values in judgement.parts.items():
        share = bool(np.isin(values, (0, 1)).all())
        for place, rows in places:
            means = (mean_interval(values[rows, side], share=share) for side in (ours, theirs))
            measures.append(Measure(f"{PART}{name}", place, len(rows), *means))
    return tuple(measures)


def kl(logp: NDArray[np.float64], logp_ref: NDArray[np.float64]) -> float:
    """Mean of log pi - log pi_ref over responses drawn from pi: KL(pi || pi_ref) in nats per response."""
    return float((logp - logp_ref).mean())


@dataclass(frozen=True)
class Benchmark:
    """What a policy and the reference reach in a task of lm-eval."""

    task: str
    metric: str
    score: float
    reference: float


@dataclass(frozen=True)
class Evaluated:
    """A policy judged on the held-out prompts."""

    rollout: Manifest  # its responses, or those of the last policy that was evaluated
    against_reference: WinRate
    against_previous: WinRate
    kl: float  # to the reference, nats per response
    reward: float  # mean score; NaN where the judge compares pairs only
    response_length: float  # mean, tokens
    truncated: float  # share of responses that the length limit cut off
    benchmarks: tuple[Benchmark, ...] = ()
    measures: tuple[Measure, ...] = ()  # of `measure`
    usage: Mapping[str, float] = field(default_factory=dict)  # what the judge took, as in Judgement
    at_equal_length: WinRate = UNKNOWN  # against the reference, of `length_control.win_rate`
    text: Mapping[str, float] = field(default_factory=dict)  # of `guards.columns`
    text_warnings: str = ""  # of `guards.warnings`


def due(settings: EvaluationConfig, iteration: int, *, since: int, iterations: int) -> bool:
    """Whether the policy after an iteration is evaluated, in a run of so many that continues from the one `since`."""
    passed = iteration - since
    return passed % settings.every == 0 or passed == iterations


def skipped(rollout: Manifest) -> Evaluated:
    """A policy that is not judged, after one that was: that one's responses stay the last that are known."""
    return Evaluated(
        rollout, UNKNOWN, UNKNOWN, kl=math.nan, reward=math.nan, response_length=math.nan, truncated=math.nan
    )


def usage_columns(usage: Mapping[str, float]) -> dict[str, float]:
    """What a judge took as columns of `history`, such as `judge_tokens_in`."""
    return {f"judge_{name}": value for name, value in usage.items()}


def history_row(
    *,
    iteration: int,
    algorithm: str,
    evaluated: Evaluated,
    counts: Mapping[str, float],
    seconds: Mapping[str, float],
    training: Mapping[str, float] | None = None,
    warnings: str = "",
) -> pd.DataFrame:
    """One row of `history`, HISTORY_COLUMNS first.

    An engine with log-probs of its own adds `logp_difference`, a judge behind a URL `judge_requests`, `judge_tokens_in`
    and others, for scoring and evaluation together; training in several passes `risk_1`, `risk_2` … after each. Then
    come the columns of `_of_benchmarks` and `parts.columns`.

    Args:
        iteration: 1-based.
        algorithm: its name.
        evaluated: the policy after this iteration.
        counts: `prompts`, `responses` and `tokens_generated` of the iteration's rollout, `micro_batch_size` of its
            training, smaller than configured if memory ran out; `logp_difference` as `stages.gather` has it.
        seconds: wall time of `generate`, `score`, `train`, `evaluate`; of parallel shards the slowest.
        training: `TrainResult.figures`; without those of `learning`, as of on-policy algorithms, their columns are NaN.
            `tied` is the share of the iteration's prompts whose responses all tie.
        warnings: `TrainResult.warnings`.
    """
    import pandas as pd

    trained = training or {}
    for name, value in usage_columns(evaluated.usage).items():
        counts = {**counts, name: counts.get(name, 0) + value}
    passes = {name: risk for name, risk in trained.items() if re.fullmatch(r"risk_\d+", name)}
    row: dict[str, Any] = {
        "iteration": iteration,
        "algorithm": algorithm,
        **_of_policy(evaluated),
        **counts,
        **{f"seconds_{step}": seconds[step] for step in TIMED},
        **{name: trained.get(name, math.nan) for name in (*learning.COLUMNS, "tied")},
        "warnings": warnings,
        **passes,
    }
    more = [name for name in (*counts, *passes) if name not in HISTORY_COLUMNS]
    tasks, measured = _of_benchmarks(evaluated.benchmarks), columns(evaluated.measures)
    return pd.DataFrame([{**row, **tasks, **measured}])[[*HISTORY_COLUMNS, *more, *tasks, *measured]]


def _of_policy(evaluated: Evaluated) -> dict[str, Any]:
    """The columns that an evaluation fills on its own; NaN where `evaluation.every` left it out.

    `kl_token` is `kl` in nats per token: log-ratios summed over all responses, by all their tokens. `win_rate_lc` is
    the win rate at equal length. `text.COLUMNS` tell of the responses' text, of the policy and of the reference;
    `text_warnings` of what hints at reward hacking there.
    """
    return {
        **_of_rate("win_rate", evaluated.against_reference),
        "win_rate_previous": evaluated.against_previous.mean,
        "kl": evaluated.kl,
        "reward_mean": evaluated.reward,
        "response_length": evaluated.response_length,
        "truncated": evaluated.truncated,
        "kl_token": evaluated.kl / evaluated.response_length,
        **_of_rate("win_rate_lc", evaluated.at_equal_length),
        **{name: evaluated.text.get(name, math.nan) for name in text.COLUMNS},
        "text_warnings": evaluated.text_warnings,
    }


def _of_rate(name: str, rate: WinRate) -> dict[str, float]:
    return {name: rate.mean, f"{name}_low": rate.low, f"{name}_high": rate.high}


def _of_benchmarks(benchmarks: Iterable[Benchmark]) -> dict[str, Any]:
    """Of each task `task_<name>`, `task_<name>_reference` and `task_<name>_metric`."""
    found: dict[str, Any] = {}
    for one in benchmarks:
        name = f"task_{one.task}"
        found |= {name: one.score, f"{name}_reference": one.reference, f"{name}_metric": one.metric}
    return found
