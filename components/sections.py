"""The sections of a run's config, with every default; config.py puts them together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from components.schema import Section


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
    micro_batch_size: PositiveInt = Field(
        32, description="prompts per forward and backward pass; halved when GPU memory runs out"
    )
    learning_rate: PositiveFloat = 5e-4
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the run's steps")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: PositiveFloat = 1.0
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.99, ge=0, lt=1)
    checkpoint_minutes: PositiveFloat = Field(10.0, description="time after which unfinished training is saved")
    checkpoint_steps: PositiveInt | None = Field(None, description="…or optimiser steps, if they come first")


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
