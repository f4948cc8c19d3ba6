"""Sections of a run's config, all but prompts, comparison and cluster, with every default; `run_config` joins them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from components.config.cluster import MOST_MEGABYTES
from components.config.marks import ANSWERS, ASIDE, KEPT, Shared
from components.config.paths import LocalPath
from components.config.schema import Section, StopStrings, TemplateOptions
from components.config.similarity import SimilarityConfig

MICRO_BATCH = 32  # prompts
COLDEST = 1e-4  # temperature; colder ones draw the same tokens
# Published recipes for 7 B and more: 5e-7 (SPPO) to 3e-6 (J-BOND) on all weights, ten times that on an adapter.
ALL_WEIGHTS_RATE, ADAPTER_RATE = 1e-6, 1e-5


class DemoConfig(Section):
    """The policy and prompts that the project makes itself; see `components.demo`."""

    numbers: int = Field(8, ge=2, le=32, description="how many numbers a prompt lists")
    prompts: int = Field(8192, gt=0, le=10**6, description="training prompts written to the JSONL file")
    held_out: int = Field(512, gt=0, le=10**6, description="evaluation prompts written to the JSONL file")
    as_text: float = Field(0.6, ge=0, le=1, description="share of demonstrations that are sorted as text")
    slips: float = Field(0.1, ge=0, le=1, description="share of demonstrations with two neighbours swapped")
    steps: int = Field(500, gt=0, le=10**7, description="supervised fine-tuning steps")
    batch_size: int = Field(64, gt=0, le=10**5, description="demonstrations per step")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="of the fine-tuning")
    hidden_size: int = Field(96, gt=0, le=8192, description="of the model")
    layers: int = Field(3, gt=0, le=100, description="of the model")
    heads: PositiveInt = Field(4, description="of its attention; twice as many divide hidden_size")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.heads):  # positions turn pairs of numbers
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of 2 × heads, {2 * self.heads}. Make it one, such as "
                f"{2 * self.heads * max(1, self.hidden_size // (2 * self.heads))}."
            )
        return self


class PolicyConfig(Section):
    """The base policy, which is also the reference."""

    model: str | None = Field(
        None,
        description="Hugging Face directory, hub id, .gguf file or its folder, or package:NAME, the one model in an "
        "installed package; absent for the demo",
    )
    revision: str | None = Field(None, description="hub revision")
    trust_remote_code: bool = Field(False, description="run code that ships with the model")
    prompt_format: str | None = Field(None, description="for models without a chat template: '… {prompt} …'")
    template_options: TemplateOptions = Field(
        default_factory=dict, description="for the chat template, such as {enable_thinking: false}"
    )
    max_prompt_tokens: PositiveInt = Field(512, description="a longer prompt stops the run in `start`")
    precision: Literal["auto", "fp32", "bf16", "probe"] = Field(
        "auto",
        description="auto: bf16 on GPUs that have it, else fp32; probe: what draws and trains faster, tried in `start`",
    )

    @field_validator("prompt_format")
    @classmethod
    def _has_a_place(cls, form: str | None) -> str | None:
        if form is not None and "{prompt}" not in form:
            raise ValueError(f"{form!r} lacks '{{prompt}}'. Write it where the prompt belongs.")
        return form


class GenerationConfig(Section):
    """How responses are sampled, by whichever engine; `run_config.Generation` names one."""

    responses: int = Field(8, le=10_000, description="K, responses per prompt", json_schema_extra={"minimum": 2})
    max_new_tokens: Annotated[PositiveInt, KEPT, ANSWERS] = Field(64, description="longest response, in tokens")
    temperature: Annotated[PositiveFloat, KEPT, ANSWERS, Field(json_schema_extra={"minimum": COLDEST})] = Field(
        1.0, description="of the policy: responses are drawn, scored, trained and compared at it"
    )
    top_p: Annotated[float, KEPT, ANSWERS] = Field(
        1.0,
        gt=0,
        le=1,
        description="mass of the tokens that are drawn from; log-probs are of all, so kl is none below 1",
    )
    top_k: Annotated[PositiveInt | None, KEPT, ANSWERS] = Field(
        None, description="draw from so many likeliest tokens; absent: from all; log-probs are of all either way"
    )
    min_p: Annotated[float, KEPT, ANSWERS] = Field(
        0.0,
        ge=0,
        lt=1,
        description="draw from tokens of at least this share of the likeliest one's probability; log-probs are of all",
    )
    stop: Annotated[StopStrings, KEPT, ANSWERS] = Field(
        [], description="a response ends with the token that completes one of them; its text ends before it"
    )

    def filters(self) -> list[str]:
        """Settings by which responses are not drawn from the whole distribution, which all log-probs are of."""
        used = {"top_p": self.top_p < 1, "top_k": self.top_k is not None, "min_p": self.min_p > 0}
        return [name for name, filtering in used.items() if filtering]

    @field_validator("temperature")
    @classmethod
    def _can_divide(cls, temperature: float) -> float:
        if temperature < COLDEST:
            raise ValueError(f"logits divided by {temperature} are not finite. Use {COLDEST} or more.")
        return temperature


class LoraConfig(Section):
    """An adapter that is trained in place of all weights; see `components.policy.lora`."""

    rank: int = Field(16, gt=0, le=10_000, description="of the matrices that are added to each layer's weights")
    alpha: PositiveInt = Field(32, description="they are scaled by alpha / rank")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        "all-linear", description="names of linear layers, such as [q_proj, v_proj]; all-linear: all but the head"
    )


class TrainingConfig(Section):
    """How one iteration's update is optimised. Learning rate and optimiser state run over all iterations."""

    epochs: int = Field(1, gt=0, le=10_000, description="passes over an iteration's responses")
    batch_size: PositiveInt = Field(
        32,
        description="prompts per optimiser step; those of an epoch's last batch, if it is smaller, weigh more, so let "
        "it divide prompts.per_iteration",
    )
    micro_batch_size: PositiveInt = Field(
        MICRO_BATCH,
        description="prompts per forward and backward pass, by default no more than a step has; halved when GPU memory "
        "runs out",
    )
    processes: int = Field(1, gt=0, le=1024, description="on one machine, each with a GPU and its share of the weights")
    nodes: Annotated[int, Shared("each trains on one machine")] = Field(
        1, gt=0, le=100, description="machines that train together, each with so many processes"
    )
    nodes_wait_minutes: Annotated[PositiveFloat, ASIDE] = Field(
        30.0, le=10_080, description="nodes wait so long for each other, to begin and in each exchange, then fail"
    )
    optimizer: Annotated[Literal["adamw", "rmsprop", "adamw_8bit"], KEPT] = Field(
        "adamw", description="adamw_8bit keeps its moments in a quarter of the memory; it needs bitsandbytes"
    )
    learning_rate: PositiveFloat = Field(
        ALL_WEIGHTS_RATE,
        description="at its peak. By default small enough for billions of parameters, with `lora` ten times as large: "
        "docs/algorithms.md says how to choose it",
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the run's steps")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="of the learning rate over the run; the first two end at 0"
    )
    max_grad_norm: PositiveFloat = Field(1.0, description="gradients are clipped to it; depends on the loss's scale")
    weight_decay: float = Field(0.0, ge=0, description="of matrices, as the optimiser has it")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="of adamw and adamw_8bit")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="of adamw and adamw_8bit")
    lora: Annotated[LoraConfig | None, KEPT] = Field(None, description="train an adapter; absent: all weights")
    gradient_checkpointing: bool = Field(
        False, description="keep each layer's inputs only and compute the rest again: less memory, more time"
    )
    monitor_prompts: int = Field(
        64,
        ge=0,
        description="at most so many prompts, and at most a quarter of more than 32, whose risk and log-probs are "
        "measured after each epoch; 0: no such figures and no warnings",
    )
    checkpoint_minutes: Annotated[PositiveFloat, ASIDE] = Field(10.0, description="unfinished training is saved then")
    checkpoint_steps: Annotated[PositiveInt | None, ASIDE] = Field(None, description="…or after so many steps")

    @property
    def world(self) -> int:
        """How many processes train together, on all nodes."""
        return self.nodes * self.processes

    @model_validator(mode="before")
    @classmethod
    def _rate_of_what_is_trained(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lora") is not None and "learning_rate" not in values:
            return {**values, "learning_rate": ADAPTER_RATE}
        return values


class EvaluationConfig(Section):
    """How each iteration's policy is judged against the reference."""

    responses: Annotated[int, KEPT] = Field(2, gt=0, le=10_000, description="responses per held-out prompt and policy")
    every: PositiveInt = Field(
        1, description="evaluate after so many iterations, and after the last; `history` is empty between"
    )
    examples: PositiveInt = Field(8, description="example prompts shown in the report")
    group_by: str | None = Field(
        None,
        min_length=1,
        description="field of the evaluation prompts' metadata; win rate and parts of the judge are also told for each "
        "of its values, 50 at most",
    )
    similarity: SimilarityConfig | None = Field(
        None, description="measure how near responses are to their prompts; absent: not measured"
    )
    tasks: list[str] = Field([], description="benchmarks of lm-eval, such as gsm8k, or hellaswag:acc with a metric")
    tasks_path: LocalPath | None = Field(None, description="folder with task files of your own")
    tasks_limit: PositiveInt | None = Field(None, description="only so many questions of each task")
    tasks_batch_size: PositiveInt = Field(8, description="questions that are read at once")

    @field_validator("tasks")
    @classmethod
    def _differ(cls, tasks: list[str]) -> list[str]:
        names = Counter(task.partition(":")[0] for task in tasks)
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(
                f"{twice[0]!r} is given twice, and a task has one column in `history`. Keep one of the two."
            )
        return tasks


class Resources(Section):
    """What one task of a step asks for; `cpu` is also its number of compute threads."""

    cpu: int = Field(2, gt=0, le=10_000, description="cores, and compute threads of the task")
    gpu: int = Field(
        0, ge=0, le=10_000, description="of a cluster; on this machine, a step with a model takes one if there is any"
    )
    memory: int = Field(4096, gt=0, le=MOST_MEGABYTES, description="MB")


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


def fitting_micro_batch(values: Mapping[str, Any]) -> int:
    """The micro-batch of a config, not checked yet, that names none."""
    sections = [values.get("training"), values.get("prompts")]
    keys = ["batch_size", "per_iteration"]
    given = [section.get(key) for section, key in zip(sections, keys, strict=True) if isinstance(section, dict)]
    return min([MICRO_BATCH, *(size for size in given if type(size) is int and size > 0)])
