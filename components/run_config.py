"""The config of a run: one schema, and the checks that need no model or data. Its defaults are in sections.py.

A YAML file holds only what differs from the defaults. `parse` is what Metaflow's `Config(parser=…)` calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from components.algorithms import BaseAlgorithm, OnPolicyAlgorithm
from components.config import registry
from components.config.cluster import ClusterConfig
from components.config.compare import CompareConfig, prompts_within
from components.config.errors import ConfigError
from components.config.schema import Section, validated
from components.config.sections import (
    DemoConfig,
    EvaluationConfig,
    GenerationConfig,
    PolicyConfig,
    Resources,
    StepResources,
    TrainingConfig,
    fitting_micro_batch,
)
from components.config.strict_yaml import load_yaml
from components.generation import Engine
from components.judges import Judge
from components.prompts.config import PromptsConfig

# Metaflow's checks recurse over the unrolled graph; a compiled Argo template passes its 1 MB limit earlier.
MAX_ITERATIONS = 100
OWN_PROMPTS = "stands beside a `demo` section, which makes its own prompts. Remove one of the two."
SAMPLING = ("start", "generate", "evaluate")  # steps that draw responses with the engine


class RunConfig(Section):
    """A whole run."""

    seed: int = Field(0, ge=0)
    iterations: int = Field(3, ge=1, le=MAX_ITERATIONS, description="T")
    start_from: str | None = Field(
        None,
        description="FLOW/RUN, whose last policy, reference and prompts to go on with; latest: the newest finished run "
        "with the same policy, prompts, judge and evaluation, or none",
    )
    demo: DemoConfig | None = None
    policy: PolicyConfig = PolicyConfig()
    prompts: PromptsConfig = PromptsConfig()
    generation: GenerationConfig = GenerationConfig()
    judge: dict[str, Any] = Field(default_factory=dict)
    algorithm: dict[str, Any] = Field(default_factory=lambda: {"name": "wind"})
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: StepResources = StepResources()
    cluster: ClusterConfig | None = None
    live_cards: list[Literal["start", "generate", "score", "train", "evaluate"]] = Field(
        ["start", "generate", "score", "train", "evaluate"],
        description="steps with a live progress card; it takes a core for some seconds each minute",
    )
    compare: CompareConfig | None = Field(None, description="for compare_flow.py")

    @model_validator(mode="before")
    @classmethod
    def _micro_batches_fit(cls, values: Any) -> Any:
        """Where nobody says how large a micro-batch is, no larger than a step has prompts."""
        training = values.get("training", {}) if isinstance(values, dict) else None
        if not isinstance(training, dict) or "micro_batch_size" in training:
            return values
        return {**values, "training": {**training, "micro_batch_size": fitting_micro_batch(values)}}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = [sentence for wrong, sentence in [*self._impossible(), *self._not_in_processes()] if wrong]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _impossible(self) -> list[tuple[bool, str]]:
        prompts, policy, k = self.prompts, self.policy, self.generation.responses
        train, batch = self.training, min(self.training.batch_size, prompts.per_iteration)
        return [
            (k < 2, f"generation.responses: {k} is too few, a win rate needs a rival. Use 2 or more."),
            (
                prompts.shards > prompts.per_iteration,
                f"prompts.shards: {prompts.shards} shards cannot share {prompts.per_iteration} prompts. "
                "Lower prompts.shards or raise prompts.per_iteration.",
            ),
            (
                train.micro_batch_size > batch,
                f"training.micro_batch_size: {train.micro_batch_size} exceeds the {batch} prompts of a step. "
                f"Use {batch} or fewer.",
            ),
            (
                self.demo is None and not policy.model,
                "policy.model: is required. Name a Hugging Face directory or hub id, or add `demo: {}`.",
            ),
            (
                self.demo is not None and policy.model is not None,
                f"policy.model: {policy.model!r} stands beside a `demo` section, which makes its own policy. "
                "Remove one of the two.",
            ),
            (
                self.demo is None and not prompts.train,
                "prompts.train: is required. Name a JSONL or Parquet file or a Hugging Face dataset.",
            ),
            (
                self.demo is not None and (prompts.train or prompts.evaluation) is not None,
                f"prompts.{'train' if prompts.train else 'evaluation'}: {OWN_PROMPTS}",
            ),
            *(
                (self.demo is not None and bool(getattr(prompts, key)), f"prompts.{key}: {OWN_PROMPTS}")
                for key in ("column", "subset", "evaluation_split", "leave_out")
            ),
            (
                self.demo is not None and self.evaluation.group_by is not None,
                "evaluation.group_by: stands beside a `demo` section, whose prompts have no metadata. "
                "Remove one of the two.",
            ),
            (
                (prompts.drop_longer or 0) > policy.max_prompt_tokens,
                f"prompts.drop_longer: {prompts.drop_longer} exceeds policy.max_prompt_tokens, "
                f"{policy.max_prompt_tokens}, and prompts in between stop the run. Raise that, or lower this.",
            ),
            (
                self.start_from is not None and not re.fullmatch("latest|[^/]+/[^/]+", self.start_from),
                f"start_from: {self.start_from!r} does not name a run. Write FLOW/RUN, such as "
                "WindFlow/1795473051411960, or latest.",
            ),
            (
                self.start_from is not None and self.compare is not None,
                "start_from: is not for comparisons, whose arms begin alike. Remove it, or run flows/wind_flow.py.",
            ),
            (
                policy.prompt_format is not None and "{prompt}" not in policy.prompt_format,
                f"policy.prompt_format: {policy.prompt_format!r} lacks '{{prompt}}'. "
                "Write it where the prompt belongs.",
            ),
        ]

    def _not_in_processes(self) -> list[tuple[bool, str]]:
        """What does not go together with training in several processes."""
        train, gpus = self.training, self.resources.train.gpu
        if train.processes == 1:
            return []
        name = self.algorithm.get("name")
        alone = "trains in one process. Set training.processes: 1."
        return [
            (train.lora is not None, f"training.lora: {alone}"),
            (train.optimizer == "adamw_8bit", f"training.optimizer: adamw_8bit {alone}"),
            (isinstance(self.build_algorithm(), OnPolicyAlgorithm), f"algorithm.name: {name} {alone}"),
            (
                0 < gpus != train.processes,
                f"training.processes: {train.processes} processes need a GPU each, and resources.train.gpu is {gpus}. "
                "Make them equal.",
            ),
        ]

    def build_algorithm(self) -> BaseAlgorithm:
        """The algorithm that the config names, with its hyper-parameters."""
        return registry.build("algorithms", self.algorithm, BaseAlgorithm)

    def build_judge(self) -> Judge:
        """The judge that the config names; the demo brings its own."""
        return registry.build("judges", self.judge, Judge)

    def build_engine(self) -> Engine:
        """The generation engine that the config names."""
        return registry.build("generation", self.generation.engine, Engine)

    def runs_model(self, kind: str) -> bool:
        """Whether steps of this kind run a model."""
        if isinstance(self.build_algorithm(), OnPolicyAlgorithm) and kind in ("generate", "score"):
            return False  # its training step draws and judges the responses
        return kind not in ("plan", "gather", "end")

    def gpus(self, kind: str) -> int:
        """How many GPUs a task of a kind of step that runs a model uses, where there are some."""
        engine = self.build_engine().gpus if kind in SAMPLING else 1
        processes = self.training.processes if kind == "train" else 1
        asked: Resources = getattr(self.resources, kind)
        return max(1, asked.gpu, engine, processes)

    def arm(self, name: str) -> RunConfig:
        """The run of one arm of `compare`.

        Its prompts per iteration follow from a budget of samples; those from one of seconds are not known yet.
        Raises ConfigError that names every bad key of the arm.
        """
        assert self.compare is not None
        try:
            arm, budget = self.compare.arm(name), self.compare.budget
            values = arm.over(self.model_dump(exclude={"compare"}))
            training, fitting = values["training"], fitting_micro_batch(self.model_dump())
            if "micro_batch_size" not in (arm.training or {}) and training["micro_batch_size"] == fitting:
                training["micro_batch_size"] = min(fitting, fitting_micro_batch(values))  # nobody chose it
            config = checked(values)
            if budget is None or budget.samples is None:
                return config
            per_prompt = config.build_algorithm().responses_per_prompt(
                k=config.generation.responses, epochs=config.training.epochs
            )
            return config.within(round(arm.share * budget.samples), per_prompt, "samples")
        except ConfigError as error:
            raise ConfigError("\n".join(f"compare.arms.{name}.{line}" for line in str(error).splitlines())) from error

    def within(self, budget: float, per_prompt: float, unit: str) -> RunConfig:
        """With as many prompts per iteration as the budget allows. Raises ConfigError; see `prompts_within`."""
        batch_size = self.training.batch_size
        n = prompts_within(budget, per_prompt, iterations=self.iterations, batch_size=batch_size, unit=unit)
        return checked({**self.model_dump(), "prompts": {**self.prompts.model_dump(), "per_iteration": n}})


DEMO_JUDGE = {"name": "verifier", "function": "components.demo:score"}


def parse(text: str) -> dict[str, Any]:
    """YAML text to a config with every default filled in, as plain data.

    Raises ConfigError that names every bad key, its value and the remedy.
    """
    config = checked(load_yaml(text))
    for name in config.compare.arms if config.compare else ():
        config.arm(name)
    return config.model_dump()


def checked(values: Mapping[str, Any]) -> RunConfig:
    """The config, with the plug-ins' own defaults and checked by their own schemas. Raises ConfigError as `parse`."""
    config = validated(RunConfig, values)
    judge = DEMO_JUDGE if config.demo and not config.judge else config.judge
    plugins = {
        "algorithm": registry.fill("algorithm", "algorithms", config.algorithm, BaseAlgorithm),
        "judge": registry.fill("judge", "judges", judge, Judge),
    }
    engine = registry.fill("generation.engine", "generation", config.generation.engine, Engine)
    generation = config.generation.model_copy(update={"engine": engine})
    filled = config.model_copy(update={**plugins, "generation": generation})
    sampler = filled.build_engine()
    if isinstance(filled.build_algorithm(), OnPolicyAlgorithm) and sampler.reads_files:
        raise ConfigError(
            f"generation.engine: {engine['name']} samples from files, and {config.algorithm['name']} samples from the "
            "policy while it trains. Use engine: {name: transformers}."
        )
    if filled.build_algorithm().reads_rewards and filled.build_judge().scores_what_loses:
        raise ConfigError(
            f"judge.truncated_penalty: lose decides pairs, and {config.algorithm['name']} trains on this judge's "
            "scores. Use a number, which is subtracted from them."
        )
    for kind in SAMPLING:
        if 0 < (gpus := getattr(config.resources, kind).gpu) < sampler.gpus:
            raise ConfigError(
                f"resources.{kind}.gpu: {gpus} is too few, generation.engine.tensor_parallel is {sampler.gpus}. "
                "Make them equal."
            )
    return filled
