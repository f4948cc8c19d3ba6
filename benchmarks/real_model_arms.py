"""The arms of the comparison on a real language model, for real_model.py: an equal search for each method, then seeds.

    python benchmarks/real_model_arms.py search sppo bond dpo jbond > SEARCH.jsonl
    python benchmarks/real_model.py MODEL_DIR SEARCH.jsonl benchmarks/results/real_model_equal_search.jsonl --search
    python benchmarks/real_model_arms.py final benchmarks/results/real_model_equal_search.jsonl > FINAL.jsonl
    python benchmarks/real_model.py MODEL_DIR FINAL.jsonl benchmarks/results/real_model.jsonl
    python benchmarks/real_model_arms.py longer benchmarks/results/real_model_equal_search.jsonl > LONGER.jsonl

Each method is tried at twelve settings of one seed, all of 768 responses: rates, sizes of iterations and of steps, and
two of its own. `final` gives the best setting of each method four seeds, and WIND's also at 40 % of the responses;
`longer` gives it 2,112 responses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TRAINING = {"schedule": "constant", "warmup_ratio": 0.0, "epochs": 2, "adam_beta2": 0.999}
SEEDS = range(4)
LONGER = 11  # quarters of the search's 768 responses
SHARE = 0.4  # of WIND's responses, in an arm of its own
# Two of each method's own settings, beside its defaults.
OWN: dict[str, list[dict[str, Any]]] = {
    "wind": [{"loser_weight": 0.3}, {"eta": 300.0, "beta": 0.02}],
    "grpo": [{"scale": "none"}, {"beta": 0.01}],
    "sppo": [{"eta": 100.0}, {"eta": 1000.0}],
    "bond": [{"alpha": 0.1}, {"alpha": 0.3}],
    "dpo": [{"beta": 0.02}, {"beta": 0.5}],
    "jbond": [{"backward_weight": 1.0}, {"anchor_rate": 0.1}],
}
Arm = dict[str, Any]


def arm(method: str, what: str, rate: float, *, prompts: int, iterations: int, **changes: Any) -> Arm:
    """One of a method; `changes` are of its algorithm, but for `epochs` and `batch_size`, which are of training."""
    training = {**TRAINING, "learning_rate": rate}
    if (size := changes.pop("batch_size", None)) is not None:
        training |= {"batch_size": size, "micro_batch_size": size}
    training["epochs"] = changes.pop("epochs", 1 if method == "jbond" else TRAINING["epochs"])
    return {
        "name": f"{method} {what} {rate:g}",
        "algorithm": {"name": method, **changes},
        "training": training,
        "temperature": 0.2,
        "prompts": prompts,
        "responses": 3 if method == "jbond" else 6,
        "iterations": iterations,
        "evaluated": 3,
    }


def searched(method: str) -> list[Arm]:
    """Twelve settings of 768 responses. J-BOND draws 3 to a prompt in each step, so what varies is the step's size."""
    large = {"prompts": 32, "iterations": 8 if method == "jbond" else 4}
    rates = [arm(method, "4x32", rate, **large) for rate in (2e-5, 3e-5, 4e-5, 6e-5)]
    small = [arm(method, "batch 4", rate, **large, batch_size=4) for rate in (2e-5, 3e-5)]
    own = [arm(method, _named(change), 4e-5, **large, **change) for change in OWN[method]]
    if method == "jbond":
        more = [
            arm(method, f"batch {size}", rate, **large, batch_size=size) for size in (16, 32) for rate in (4e-5, 8e-5)
        ]
    else:
        more = [
            arm(method, "8x16", 4e-5, prompts=16, iterations=8),
            *(arm(method, "16x8", rate, prompts=8, iterations=16) for rate in (2e-5, 4e-5)),
            arm(method, "4 passes", 2e-5, **large, epochs=4),
        ]
    return [*rates, *small, *own, *more]


def _named(change: dict[str, Any]) -> str:
    return " ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in change.items()
    )


def best(rows: list[dict[str, Any]]) -> dict[str, Arm]:
    """Each method's arm with the largest share of constraints met in the search."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        method = row["arm"]["algorithm"]["name"]
        if method in OWN and "met" in row and row["met"] > found.get(method, {"met": -1.0})["met"]:
            found[method] = row
    return {method: row["arm"] for method, row in found.items()}


def final(rows: list[dict[str, Any]]) -> list[Arm]:
    """The best arms at each seed, and WIND's at a share of its responses."""
    chosen = best(rows)
    arms = list(chosen.values())
    if wind := chosen.get("wind"):
        fewer = round(SHARE * wind["iterations"])
        arms.append(
            {**wind, "name": f"{wind['name']}, {fewer} of {wind['iterations']} iterations", "iterations": fewer}
        )
    return [{**one, "seed": seed, "evaluated": 2} for one in arms for seed in SEEDS]


def longer(rows: list[dict[str, Any]]) -> list[Arm]:
    """The best arms at each seed, with 2,112 responses."""
    arms = [
        {**one, "iterations": (n := one["iterations"] * LONGER // 4), "name": f"{one['name']}, {n} iterations"}
        for one in best(rows).values()
    ]
    return [{**one, "seed": seed, "evaluated": 2} for one in arms for seed in SEEDS]


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    if kind == "search":
        made = [one for method in given for one in searched(method)]
    else:
        found = [json.loads(line) for line in Path(given[0]).read_text("utf-8").splitlines()]
        made = final(found) if kind == "final" else longer(found)
    print("\n".join(map(json.dumps, made)))
