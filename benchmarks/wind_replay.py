"""WIND that also trains on the responses of the iteration before, on the demo's task; see docs/algorithms.md.

    python benchmarks/wind_replay.py RESULTS.jsonl [ARM …]
    python benchmarks/wind_replay.py --table RESULTS.jsonl

Base policy, held-out prompts and settings are those of the arm `wind` of flows/configs/compare.yaml. Earlier responses
keep their win rates, which are against pi_{t-1}: pi_t draws none to these prompts. Only log-probs are computed anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd

from components import stages
from components.comparison import analysis, arms, report
from components.data import rollouts
from components.policy.logprobs import score_responses
from components.run_config import RunConfig, parse
from components.stages.context import Workspace, open_workspace
from components.stages.handover import Started, TrainInput
from components.stages.in_process import Pipeline, Update
from components.store import Manifest

CONFIG = Path(__file__).parents[1] / "flows/configs/compare.yaml"
SEEDS = range(3)
KEPT = ["iteration", "win_rate", "kl", "reward_mean", "prompts", "responses", *analysis.SPENT]

# Part of the comparison's prompts, whether the responses of the iteration before are trained on too, epochs.
TRIALS = {
    "full": (1.0, False, 4),  # the comparison's `wind`, whose figures docs/comparison.csv has
    "full-and-earlier": (1.0, True, 4),
    "half": (0.5, False, 4),
    "half-and-earlier": (0.5, True, 4),
    "half-8-epochs": (0.5, False, 8),  # as many steps as half-and-earlier
}


class Replay(Pipeline):
    """A run whose training is also given the scored responses of the iteration before."""

    def __init__(self, config: RunConfig, store_root: str, *, earlier: bool) -> None:
        super().__init__(config, store_root)
        self.earlier, self.last, self.cpu = earlier, list[Manifest](), list[float]()  # cpu: seconds of each update

    def update(
        self, started: Started, policy: Manifest, optimizer: Manifest | None, iteration: int, history: object = None
    ) -> Update:
        """As the pipeline's, with one shard."""
        self.seconds, begin = {}, time.process_time()
        with self._work("plan") as work:
            shards = stages.plan(work, started.prompts, iteration)
        with self._work("generate") as work:
            drawn = stages.generate(work, policy, shards[0], iteration)
        with self._work("score") as work:
            fresh = stages.score(work, policy, started.policy, drawn, shards[0])
            data = [fresh, *(_again(work, policy, old) for old in self.last)]
        with self._work("gather") as work:
            counts = stages.gather(work, shards, [fresh])
        with self._work("train") as work:
            trained = stages.train(work, TrainInput(policy, optimizer, shards, data, iteration))
        self.last = [fresh] if self.earlier else []
        self.cpu.append(time.process_time() - begin)
        return Update(shards, [drawn], data, counts, trained)


def _again(work: Workspace, policy: Manifest, scored: Manifest) -> Manifest:
    """Responses of an earlier policy with log-probs under this one."""
    data = work.scored([scored])
    logp = score_responses(work.policy(policy), data.rollout.prompt_tokens, data.rollout.tokens)
    return work.keep("rollout.parquet", lambda path: rollouts.save_scored(replace(data, logp_old=logp), path))


def arm_config(config: RunConfig, name: str, seed: int) -> RunConfig:
    """Evaluated in every other iteration, and training measures nothing on the way: neither changes what it learns."""
    own, (part, _, epochs) = config.arm("wind"), TRIALS[name]
    few = {"per_iteration": int(part * own.prompts.per_iteration), "shards": 1}
    sections: dict[str, object] = {
        "prompts": own.prompts.model_copy(update=few),
        "training": own.training.model_copy(update={"epochs": epochs, "monitor_prompts": 0}),
        "evaluation": own.evaluation.model_copy(update={"every": 2}),
    }
    return own.model_copy(update={"seed": seed, **sections})


def run(results: Path, names: Sequence[str]) -> None:
    """Every arm with one seed after the other, each appended as soon as it has ended."""
    config = RunConfig.model_validate(parse(CONFIG.read_text("utf-8")))
    with tempfile.TemporaryDirectory() as store:
        with open_workspace(config, store, "start") as work:
            started = arms.start(work)
        for seed, name in product(SEEDS, names):
            pipeline = Replay(arm_config(config, name, seed), store, earlier=TRIALS[name][1])
            rows = pipeline.run(started)[KEPT].assign(cpu=pipeline.cpu).to_json(orient="records", double_precision=5)
            with results.open("a", encoding="utf-8") as file:
                file.write(f'{{"arm": "{name}", "seed": {seed}, "history": {rows}}}\n')


def table(results: Path) -> None:
    """Ends, differences from the best, and what it takes to reach win rates, in seconds of processor time."""
    rows = map(json.loads, results.read_text("utf-8").splitlines())
    tidy = analysis.tidy((row["arm"], row["seed"], pd.DataFrame(row["history"])) for row in rows)
    tidy["seconds"] = tidy.groupby(["arm", "seed"])["cpu"].cumsum()  # wall times are of a machine that others used
    print(report.text(tidy, analysis.to_reach(tidy, analysis.levels(tidy))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--table"]:
        table(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[1]), sys.argv[2:] or [*TRIALS])
