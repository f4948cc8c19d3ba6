"""A run's stages in order in one process: what the flow does, without its tasks. For comparisons, benchmarks, tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pandas as pd

from components import stages
from components.evaluation.metrics import Evaluated
from components.plan import splitting
from components.run_config import RunConfig
from components.stages.context import Workspace, open_workspace
from components.stages.handover import EvaluateInput, Started, TrainInput, TrainResult
from components.store import Manifest


@dataclass(frozen=True)
class Update:
    """What an iteration gives as far as the next policy."""

    shards: list[Manifest]
    generated: list[Manifest]
    scored: list[Manifest]
    counts: dict[str, float]
    trained: TrainResult


@dataclass(frozen=True)
class Iteration(Update):
    """A whole iteration."""

    evaluated: Evaluated
    history: pd.DataFrame  # of this iteration and those before it; its seconds are sums over shards


class Pipeline:
    """The stages of one run, with the wall time of each kind."""

    def __init__(self, config: RunConfig, store_root: str, *, precision: str = "fp32") -> None:
        self.config = config
        self.seconds: dict[str, float] = {}
        self._open = partial(open_workspace, config, store_root, precision=precision)

    @contextmanager
    def _work(self, kind: str) -> Iterator[Workspace]:
        begin = time.perf_counter()
        with self._open(kind) as workspace:
            yield workspace
        for name, took in ((kind, time.perf_counter() - begin), (splitting.loading(kind), workspace.loading.seconds)):
            self.seconds[name] = self.seconds.get(name, 0.0) + took

    def start(self) -> Started:
        """Checks, base policy, prompts."""
        with self._work("start") as work:
            return stages.start(work)

    def run(self, started: Started) -> pd.DataFrame:
        """The history of the whole run."""
        *_, last = self.iterate(started)
        return last.history

    def iterate(self, started: Started) -> Iterator[Iteration]:
        """One iteration after the other."""
        policy, optimizer, last, history = started.policy, None, started.evaluated, None
        for t in range(1, self.config.iterations + 1):
            update = self.update(started, policy, optimizer, t, history)
            policy, optimizer = update.trained.policy, update.trained.optimizer
            with self._work("evaluate") as work:
                given = EvaluateInput(policy, started.policy, started.prompts, started.evaluated, last, t)
                evaluated = stages.evaluate(work, given)
            last = evaluated.rollout
            history = stages.add_row(
                history,
                self.config,
                t,
                evaluated,
                counts={**update.counts, **update.trained.counts},
                seconds=self.seconds,
                training=update.trained.figures,
                warnings=update.trained.warnings,
            )
            yield Iteration(**vars(update), evaluated=evaluated, history=history)

    def update(
        self,
        started: Started,
        policy: Manifest,
        optimizer: Manifest | None,
        iteration: int,
        history: pd.DataFrame | None = None,
    ) -> Update:
        """One iteration as far as the next policy, after those of `history`; `seconds` are this iteration's."""
        self.seconds = {}
        with self._work("plan") as work:
            shards = stages.plan(work, started.prompts, iteration, splitting.of_a_shard(history))
        generated, scored = [], []
        for shard in shards:
            with self._work("generate") as work:
                generated.append(stages.generate(work, policy, shard, iteration))
            with self._work("score") as work:
                scored.append(stages.score(work, policy, started.policy, generated[-1], shard))
        with self._work("gather") as work:
            counts = stages.gather(work, shards, scored, self.seconds)
        with self._work("train") as work:
            trained = stages.train(work, TrainInput(policy, optimizer, shards, scored, iteration))
            stages.forget_unfinished(work, trained.unfinished)
        self.seconds["train"] += trained.seconds_before
        return Update(shards, generated, scored, counts, trained)
