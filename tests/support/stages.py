"""A run in one process, each stage in a workspace of its own."""

from __future__ import annotations

from dataclasses import dataclass

from components import stages
from components.run_config import RunConfig
from components.stages.context import open_workspace
from components.stages.in_process import Iteration, Pipeline


@dataclass
class Run:
    """A run and where it is kept."""

    config: RunConfig
    root: str
    started: stages.Started
    iterations: list[Iteration]

    def work(self, kind):
        return open_workspace(self.config, self.root, kind, precision=self.started.precision)

    def rollout(self, manifest):
        with self.work("gather") as work:
            return work.rollout(manifest)


def start(config, root):
    return Run(config, root, Pipeline(config, root).start(), [])


def iterations(run):
    """One after the other, each stage in a workspace of its own, as in the flow."""
    return Pipeline(run.config, run.root, precision=run.started.precision).iterate(run.started)
