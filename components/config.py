"""The config of a run: one schema that owns every default, and the checks that need no model or data.

A YAML file holds only what differs from the defaults. `parse` is what Metaflow's `Config(parser=…)` calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from components import registry
from components.algorithms import BaseAlgorithm
from components.compare_config import CompareConfig, prompts_within
from components.errors import ConfigError
from components.generation import Engine
from components.judges import Judge
from components.schema import Section, explain, load_yaml

# Metaflow's checks recurse over the unrolled graph; a compiled Argo template passes its 1 MB limit earlier.
MAX_ITERATIONS = 100


class DemoConfig(Section):
    """The policy and prompts that the project makes itself; see `components.demo`."""

    numbers: int = Field(8, ge=2, le=32, description="how many numbers a prompt lists")
    prompts: PositiveInt = Field(8192, description="training prompts written to the JSONL file")
    held_out: PositiveInt = Field(512, description="evaluation prompts written to the JSONL file")
    as_text: float = Field(0.6, ge=0, le=1, description="share of demonstrations that are sorted as text")
    slips: float = Field(0.1, ge=0, le=1, description="share of demonstrations with two neighbours swapped")
    steps: PositiveInt = Field(500, description="supervised fine-tuning steps")
    batch_size: PositiveInt = Field(64, description="demonstrations per step")
    learning_rate: PositiveFloat = 2e-3
    hidden_size: PositiveInt = 96
    layers: PositiveInt = 3
    heads: PositiveInt = 4


class PolicyConfig(Section):
    """The base policy, which is also the reference."""

    model: str | None = Field(None, description="Hugging Face directory or hub id; absent for the demo")
    revision: str | None = Field(None, description="hub revision")
    trust_remote_code: bool = Field(False, description="run code that ships with the model")
    prompt_format: str | None = Field(None, description="for models without a chat template: '… {prompt} …'")
    max_prompt_tokens: PositiveInt = Field(512, description="a longer prompt stops the run in `start`")
    precision: Literal["auto", "fp32", "bf16", "probe"] = Field(
        "auto",
        description="auto: bf16 on GPUs that have it, else fp32; probe: whichever is faster in `start`",
    )


class PromptsConfig(Section):
    """Where prompts come from and how many an iteration uses."""

    train: str | None = Field(None, description="JSONL or Parquet file, or a Hugging Face dataset name")
    evaluation: str | None = Field(None, description="held-out prompts; absent: split off from `train`")
    split: str = Field("train", description="split of a Hugging Face dataset")
    held_out: PositiveInt = Field(256, description="at most this many evaluation prompts")
    per_iteration: PositiveInt = Field(512, description="n, prompts per iteration")
    shards: PositiveInt = Field(2, description="parallel generate and score tasks per iteration")
    allow_duplicates: bool = False


class GenerationConfig(Section):
    """How responses are sampled."""

    engine: dict[str, Any] = Field(default_factory=lambda: {"name": "transformers"})
    responses: int = Field(8, description="K, responses per prompt")
    max_new_tokens: PositiveInt = 64
    temperature: PositiveFloat = 1.0
    top_p: float = Field(1.0, gt=0, le=1)


class TrainingConfig(Section):
    """How one iteration's update is optimised. Learning rate and optimiser state run over all iterations."""

    epochs: PositiveInt = 1
    batch_size: PositiveInt = Field(32, description="prompts per optimiser step")
    micro_batch_size: PositiveInt = Field(32, description="prompts per forward and backward pass")
    learning_rate: PositiveFloat = 5e-4
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the run's steps")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: PositiveFloat = 1.0
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.99, ge=0, lt=1)


class EvaluationConfig(Section):
    """How each iteration's policy is judged against the reference."""

    responses: PositiveInt = Field(2, description="responses per held-out prompt and policy")
    examples: PositiveInt = Field(8, description="example prompts shown in the report")


class Resources(Section):
    """What one task of a step asks for; `cpu` is also its number of compute threads."""

    cpu: PositiveInt = 2
    gpu: int = Field(0, ge=0)
    memory: PositiveInt = Field(4096, description="MB")


class StepResources(Section):
    """Resources of each kind of step."""

    start: Resources = Resources()
    plan: Resources = Resources()
    generate: Resources = Resources()
    score: Resources = Resources()
    gather: Resources = Resources()
    train: Resources = Resources()
    evaluate: Resources = Resources()
    end: Resources = Resources()


class RunConfig(Section):
    """A whole run."""

    seed: int = Field(0, ge=0)
    iterations: int = Field(3, ge=1, le=MAX_ITERATIONS, description="T")
    demo: DemoConfig | None = None
    policy: PolicyConfig = PolicyConfig()
    prompts: PromptsConfig = PromptsConfig()
    generation: GenerationConfig = GenerationConfig()
    judge: dict[str, Any] = Field(default_factory=dict)
    algorithm: dict[str, Any] = Field(default_factory=lambda: {"name": "wind"})
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: StepResources = StepResources()
    live_cards: list[Literal["start", "generate", "score", "train", "evaluate"]] = Field(
        ["start", "generate", "score", "train", "evaluate"],
        description="steps with a live progress card; each costs its task about a second",
    )
    compare: CompareConfig | None = Field(None, description="for compare_flow.py")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problems = [sentence for wrong, sentence in self._impossible() if wrong]
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
                f"prompts.{'train' if prompts.train else 'evaluation'}: stands beside a `demo` section, "
                "which makes its own prompts. Remove one of the two.",
            ),
            (
                policy.prompt_format is not None and "{prompt}" not in policy.prompt_format,
                f"policy.prompt_format: {policy.prompt_format!r} lacks '{{prompt}}'. "
                "Write it where the prompt belongs.",
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

    def arm(self, name: str) -> RunConfig:
        """The run of one arm of `compare`.

        Its prompts per iteration follow from a budget of samples; those from one of seconds are not known yet.
        Raises ConfigError that names every bad key of the arm.
        """
        assert self.compare is not None
        try:
            arm, budget = self.compare.arm(name), self.compare.budget
            config = checked(arm.over(self.model_dump(exclude={"compare"})))
            if budget is None or budget.samples is None:
                return config
            per_prompt = config.build_algorithm().responses_per_prompt(config)
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
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig)) from error
    judge = DEMO_JUDGE if config.demo and not config.judge else config.judge
    plugins = {
        "algorithm": registry.fill("algorithm", "algorithms", config.algorithm, BaseAlgorithm),
        "judge": registry.fill("judge", "judges", judge, Judge),
    }
    engine = registry.fill("generation.engine", "generation", config.generation.engine, Engine)
    return config.model_copy(update={**plugins, "generation": config.generation.model_copy(update={"engine": engine})})
