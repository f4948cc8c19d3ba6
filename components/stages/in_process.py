"""A run's stages in order in one process: what the flow does, without its tasks. For comparisons and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pandas as pd

from components import stages
from components.evaluation import metrics
from components.run_config import RunConfig
from components.stages import TrainResult
from components.stages.context import Workspace, open_workspace
from components.stages.handover import Started
from components.store import Manifest


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
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - begin

    def start(self) -> Started:
        """Checks, base policy, prompts."""
        with self._work("start") as work:
            return stages.start(work)

    def iterate(self, started: Started) -> Iterator[pd.DataFrame]:
        """The history, one row longer after each iteration; its seconds are sums over shards."""
        policy, optimizer, evaluated = started.policy, None, started.evaluated
        history: pd.DataFrame | None = None
        for t in range(1, self.config.iterations + 1):
            trained, counts = self.update(started, policy, optimizer, t)
            policy, optimizer = trained.policy, trained.optimizer
            result = metrics.skipped(evaluated)
            with self._work("evaluate") as work:
                if metrics.due(self.config.evaluation, t, since=0, iterations=self.config.iterations):
                    rivals = [started.evaluated, evaluated]
                    result = stages.evaluate(work, policy, started.policy, started.prompts, rivals, t)
            evaluated = result.rollout
            row = metrics.history_row(
                iteration=t,
                algorithm=self.config.algorithm.name,
                evaluated=result,
                counts=counts,
                seconds=self.seconds,
                training=trained.figures,
                warnings=trained.warnings,
            )
            history = row if history is None else pd.concat([history, row], ignore_index=True)
            yield history

    def update(
        self, started: Started, policy: Manifest, optimizer: Manifest | None, iteration: int
    ) -> tuple[TrainResult, dict[str, float]]:
        """One iteration as far as the next policy, and its counts; `seconds` are this iteration's."""
        self.seconds = {}
        with self._work("plan") as work:
            shards = stages.plan(work, started.prompts, iteration)
        scored = []
        for shard in shards:
            with self._work("generate") as work:
                rollout = stages.generate(work, policy, shard, iteration)
            with self._work("score") as work:
                scored.append(stages.score(work, policy, started.policy, rollout, shard))
        with self._work("gather") as work:
            counts = stages.gather(work, shards, scored)
        with self._work("train") as work:
            trained = stages.train(work, stages.TrainInput(policy, optimizer, shards, scored, iteration))
            stages.forget_unfinished(work, trained.unfinished)
        self.seconds["train"] += trained.seconds_before
        return trained, {**counts, **trained.counts}
