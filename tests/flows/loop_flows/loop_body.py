"""A loop body for several flows: every iteration adds up its shards. Steps fail where FAIL_AT says so."""

import os

from metaflow import Config, FlowSpec, StepMutator, config_expr, current, environment, resources, retry, step
from metaflow import user_step_decorator as wrapper


@wrapper
def noted(step_name, flow, inputs, attributes):
    yield
    flow.notes = [*getattr(flow, "notes", []), f"{step_name} {attributes['text']}"]


class Labelled(StepMutator):
    """Sets an environment variable."""

    def init(self, label):
        self.label = label

    def pre_mutate(self, mutable_step):
        mutable_step.add_decorator(environment, deco_kwargs={"vars": {"LABEL": self.label}})


def fail_if_told(shard=None):
    here = current.step_name if shard is None else f"{current.step_name}/{shard}"
    if os.environ.get("FAIL_AT") == here:
        raise RuntimeError(f"told to fail at {here}")


class Body(FlowSpec):
    config = Config("config", default_value={"iterations": 1, "shards": 2, "train": {"cpu": 1, "memory": 512}})

    def add(self, inputs):
        return inputs[0].total * 3 + sum(task.value for task in inputs)

    @noted(text=config_expr("str(config.shards)"))
    @retry(times=1, minutes_between_retries=0)
    @step
    def plan(self):
        """Counts the iteration."""
        fail_if_told()
        self.attempts = current.retry_count + 1
        if os.environ.get("FAIL_ONCE_AT") == current.step_name and current.retry_count == 0:
            raise RuntimeError("told to fail once")
        self.iteration += 1
        self.shards = list(range(self.config.shards))
        self.next(self.generate, foreach="shards")

    @environment(vars={"MEMORY": config_expr("str(config.train.memory)"), "PLAIN": "plain"})
    @resources(**config_expr("config.train"))
    @step
    def generate(self):
        fail_if_told(self.input)
        self.value = 10 * self.iteration + self.input
        self.seen = os.environ["MEMORY"] + os.environ["PLAIN"]
        self.next(
            self.gather,
        )

    @Labelled(config_expr("'label %d' % config.shards"))
    @step
    def gather(self, inputs):
        fail_if_told()
        self.label = os.environ["LABEL"]
        self.iteration = inputs[0].iteration
        self.history = inputs[0].history
        self.seen = inputs[0].seen
        self.total = self.add(inputs)
        self.next(self.evaluate)

    @step
    def evaluate(self):
        fail_if_told()
        self.history = [*self.history, self.total]
        self.next(self.plan)
