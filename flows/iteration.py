"""One iteration of alignment: the steps that flows repeat, and the artifacts with which they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaflow import config_expr, resources, step

from base import AlignmentFlow, told_plainly
from components.config.steps import BODY
from nodes import this_node

if TYPE_CHECKING:
    from components.stages.handover import Started
    from components.stages.origin import Origin

# Where several nodes train, `spread` starts and `collect` joins them; elsewhere both are left out.
STEPS = (*BODY[:-2], "spread", "train", "collect", "evaluate")
NODES = ("spread", "train", "collect", "config.training.nodes")


class Iteration(AlignmentFlow):
    """The body of the loop, whose last step goes back to its first."""

    tracked: str  # name of the tracked run; see `components.stages.tracking`
    links: dict[str, str]  # where to look at it, by tracker

    def begin(self, started: Started, origin: Origin | None = None) -> None:
        """The artifacts with which the first iteration begins, those of a run to continue from if there is one."""
        self.reference, self.prompts, self.precision = started.policy, started.prompts, started.precision
        self.evaluated_reference, self.reward_reference = started.evaluated, started.reward
        last = origin or started
        self.policy, self.evaluated = last.policy, last.evaluated
        self.optimizer = origin.optimizer if origin else None
        self.history = origin.history if origin else None
        self.iteration = self.since = origin.iteration if origin else 0

    @resources(**config_expr("config.resources.plan"))
    @step
    def plan(self):
        """Choose this iteration's prompts and split them into shards."""
        from components import stages

        self.iteration += 1
        with self.work("plan") as work:
            self.shards = stages.plan(work, self.prompts, self.iteration, self.history)
        self.next(self.generate, foreach="shards")

    @resources(**config_expr("config.resources.generate"))
    @step
    def generate(self):
        """Draw K responses to each prompt of a shard from the current policy."""
        from components import stages

        self.shard = self.input
        with self.work("generate") as work:
            self.rollout = stages.generate(work, self.policy, self.shard, self.iteration)
        self.next(self.score)

    @resources(**config_expr("config.resources.score"))
    @step
    def score(self):
        """Judge the shard's responses; log-probs under policy and reference by the trainer's own forward."""
        from components import stages

        with self.work("score") as work:
            self.rollout = stages.score(work, self.policy, self.reference, self.rollout, self.shard)
        self.next(self.gather)

    @resources(**config_expr("config.resources.gather"))
    @step
    def gather(self, inputs):
        """Join the shards; check that none is missing."""
        from components import stages
        from components.reporting import report

        self.rollouts = [shard.rollout for shard in inputs]
        self.merge_artifacts(inputs, exclude=["shard", "rollout", "seconds"])
        names = {name for shard in inputs for name in shard.seconds}
        self.seconds = {name: max(shard.seconds.get(name, 0.0) for shard in inputs) for name in names}
        with self.work("gather") as work:
            self.counts = stages.gather(work, self.shards, self.rollouts, self.seconds)
        done = {"iteration": self.iteration, "last": self.since + self.settings.iterations, "shards": len(self.shards)}
        print(report.drawn(self.counts, self.seconds, **done))
        self.next(self.spread)

    @resources(**config_expr("config.resources.gather"))
    @step
    def spread(self):
        """Start the training on all nodes: Metaflow has no join do that."""
        self.next(self.train)

    @resources(**config_expr("config.resources.train"))
    @step
    def train(self):
        """Train the next policy from the current one; the optimiser continues where it was."""
        from components import stages
        from components.runtime import machine

        given = stages.TrainInput(self.policy, self.optimizer, self.shards, self.rollouts, self.iteration, self.since)
        with this_node(self.settings) as node, self.work("train") as work:
            trained = stages.train_on(work, given, node)
            self.machine = machine.described()
        self.is_first_node = node.index == 0
        if trained is not None:
            self.seconds["train"] += trained.seconds_before
            self.policy, self.optimizer, self.training = trained.policy, trained.optimizer, trained.figures
            self.counts = {**self.counts, **trained.counts}
            self.unfinished, self.warnings = trained.unfinished, trained.warnings
        self.next(self.collect)

    @resources(**config_expr("config.resources.gather"))
    @step
    def collect(self, inputs):
        """Take over what the first of the nodes has; all have trained it together."""
        self.merge_artifacts([node for node in inputs if node.is_first_node])
        self.next(self.evaluate)

    @resources(**config_expr("config.resources.evaluate"))
    @step
    def evaluate(self):
        """Compare with the reference and the last policy evaluated on held-out prompts; add a row to `history`."""
        from components import stages
        from components.reporting import report
        from components.stages import tracking

        rivals = self.evaluated_reference, self.evaluated
        given = stages.EvaluateInput(self.policy, self.reference, self.prompts, *rivals, self.iteration, self.since)
        due = stages.evaluation_due(self.settings, self.iteration, self.since)
        with self.work("evaluate", runs_model=due) as work:
            stages.forget_unfinished(work, self.unfinished)
            result = stages.evaluate(work, given)
        self.evaluated = result.rollout
        self.history = stages.add_row(
            self.history,
            self.settings,
            self.iteration,
            result,
            counts=self.counts,
            seconds=self.seconds,
            training=self.training,
            warnings=self.warnings,
        )
        print(report.standing(self.history, self.since + self.settings.iterations))
        self.tell("evaluate")  # the win rate, which of a comparison's arm no later step tells
        with told_plainly():
            self.links |= tracking.log(self.settings, self.store_root, self.tracked, self.history, self.since)
        self.next(self.plan)
