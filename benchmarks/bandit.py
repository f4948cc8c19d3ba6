"""Speed of the exact laboratory: one step on a long reward order, many steps on preference matrices.

OMP_NUM_THREADS=1 python benchmarks/bandit.py order
python benchmarks/bandit.py matrix
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from components.bandit.games import Bandit, PreferenceMatrix, RewardOrder
from components.bandit.methods import Bond, Method, Wind
from components.bandit.metrics import duality_gap
from components.bandit.policies import normalise


def timed(what: str, work: Callable[[], object]) -> None:
    """Prints the wall seconds of work."""
    begin = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - begin:.2f} s", flush=True)


def order(responses: int) -> None:
    """One prompt: sort the rewards and take one step."""
    rng = np.random.default_rng(0)
    rewards = rng.standard_normal((1, responses))
    log_ref = normalise(rng.standard_normal((1, responses)))

    def step(method: Method) -> None:
        method.step(Bandit(RewardOrder(rewards), log_ref, 0.1, rewards), log_ref)

    for method in (Wind(), Bond(), Bond(alpha=0.8)):
        timed(f"{responses:,} responses, sort and one step, {method}", lambda method=method: step(method))


def matrix(prompts: int, responses: int, steps: int) -> None:
    """Any preference: many WIND steps."""
    rng = np.random.default_rng(0)
    preference = np.empty((prompts, responses, responses))
    for one in preference:
        upper = np.triu(rng.uniform(-0.5, 0.5, (responses, responses)), 1)
        one[:] = 0.5 + upper - upper.T
    log_ref = normalise(rng.standard_normal((prompts, responses)))
    bandits: list[Bandit] = []
    timed(
        "check of the preference matrices", lambda: bandits.append(Bandit(PreferenceMatrix(preference), log_ref, 0.1))
    )

    def iterate() -> None:
        log_pi = log_ref
        for _ in range(steps):
            log_pi = Wind().step(bandits[0], log_pi)
        print(
            f"duality gap {duality_gap(bandits[0], log_ref).mean():.1e} -> {duality_gap(bandits[0], log_pi).mean():.1e}"
        )

    timed(f"{prompts} prompts x {responses:,} responses, {steps} WIND steps", iterate)


def main() -> None:
    """Runs the part that is named, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["order", "matrix", "both"], nargs="?", default="both")
    options = parser.parse_args()
    if options.part != "matrix":
        order(1_000_000)
    if options.part != "order":
        matrix(200, 1000, 100)


if __name__ == "__main__":
    main()
