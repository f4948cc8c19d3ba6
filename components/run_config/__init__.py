"""The config of a run: one schema, and the checks that need no model or data. Its defaults are in sections.py.

A YAML file holds only what differs from the defaults. `parse` is what Metaflow's `Config(parser=…)` calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from components.config.compare import Arm, CompareConfig, may_differ, prompts_within
from components.config.errors import ConfigError
from components.config.marks import Shared, marked
from components.config.schema import validated
from components.config.sections import Resources, fitting_micro_batch
from components.config.steps import JUDGING, SAMPLING, SHARDED, WITH_MODEL
from components.config.strict_yaml import load_yaml
from components.run_config import conflicts
from components.run_config.fields import MAX_ITERATIONS, RunFields

__all__ = ["MAX_ITERATIONS", "RunConfig", "checked", "parse"]


class RunConfig(RunFields):
    """A whole run."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if problems := list(conflicts.found(self)):
            raise ValueError("\n".join(problems))
        return self

    def runs_model(self, kind: str) -> bool:
        """Whether steps of this kind run a model."""
        if self.algorithm.on_policy and kind in SHARDED:
            return False  # its training step draws and judges the responses
        return kind in WITH_MODEL

    def num_gpus(self, kind: str) -> int:
        """How many GPUs a task of a kind of step that runs a model uses, where there are some."""
        engine = self.generation.engine.gpus if kind in SAMPLING else 1
        judge = max(member.gpus for member in self.judge.members) if kind in JUDGING else 1
        processes = self.training.processes if kind == "train" else 1
        asked: Resources = getattr(self.resources, kind)
        return max(1, asked.gpu, engine, judge, processes)

    def arm(self, name: str) -> RunConfig:
        """The run of one arm of `compare`.

        Its prompts per iteration follow from a budget of samples; those from one of seconds are not known yet.
        Raises ConfigError that names every bad key of the arm.
        """
        assert self.compare is not None
        try:
            arm = self.compare.arm(name, marked(RunFields, Shared))
        except ConfigError as error:
            raise ConfigError("\n".join(f"compare.arms.{name}.{line}" for line in str(error).splitlines())) from error
        try:
            return self._with(arm)
        except ConfigError as error:
            raise ConfigError("\n".join(_of_arm(name, line) for line in str(error).splitlines())) from error

    def _with(self, arm: Arm) -> RunConfig:
        """Raises ConfigError by the keys of a config without arms."""
        assert self.compare is not None
        budget = self.compare.budget
        values = arm.over(self.model_dump(exclude={"compare"}))
        training, fitting = values["training"], fitting_micro_batch(self.model_dump())
        if "micro_batch_size" not in (arm.training or {}) and training["micro_batch_size"] == fitting:
            training["micro_batch_size"] = min(fitting, fitting_micro_batch(values))  # nobody chose it
        config = checked(values)
        if budget is None or budget.samples is None:
            return config
        per_prompt = config.algorithm.responses_per_prompt(k=config.generation.responses, epochs=config.training.epochs)
        return config.within(round(arm.share * budget.samples), per_prompt, "samples")

    def within(self, budget: float, per_prompt: float, unit: str) -> RunConfig:
        """With as many prompts per iteration as the budget allows. Raises ConfigError; see `prompts_within`."""
        batch_size = self.training.batch_size
        n = prompts_within(budget, per_prompt, iterations=self.iterations, batch_size=batch_size, unit=unit)
        return checked({**self.model_dump(), "prompts": {**self.prompts.model_dump(), "per_iteration": n}})


def _of_arm(name: str, line: str) -> str:
    """A line about an arm's config by the key in the file: the arm's own, or that of what all arms share."""
    key, _, rest = line.partition(":")
    return f"compare.arms.{name}.{line}" if may_differ(key) else f"{key}: for compare.arms.{name}:{rest}"


def parse(text: str) -> dict[str, Any]:
    """YAML text to a config with every default filled in, as plain data.

    Raises ConfigError that names every bad key, its value and the remedy.
    """
    config = checked(load_yaml(text))
    if config.compare is not None:
        _check_arms(config, config.compare)
    return config.model_dump()


def _check_arms(config: RunConfig, compare: CompareConfig) -> None:
    """Raises ConfigError for an arm that cannot be, and for two names of one, which would run twice to the same end.

    They are compared with all defaults filled in: `{}` and `{training: {epochs: 1}}` may be one arm.
    """
    known: dict[str, str] = {}
    for name in compare.arms:
        whole = json.dumps([config.arm(name).model_dump(), compare.share(name)], sort_keys=True)
        if (first := known.setdefault(whole, name)) != name:
            raise ConfigError(f"compare.arms.{name}: has the settings of {first}, to the last. Keep one of the two.")


def checked(values: Mapping[str, Any]) -> RunConfig:
    """The config, with the plug-ins' own defaults and checked by their own schemas. Raises ConfigError as `parse`."""
    return validated(RunConfig, values)
