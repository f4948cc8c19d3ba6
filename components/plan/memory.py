"""What a run takes of GPU memory, and what it leaves in the store, estimated from its config and its models' sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from components.plan.costs import Lengths, Models, Shape, tokens_trained
from components.plan.space import FP32, MOMENTS
from components.run_config import RunConfig
from components.training.shares import shares

BF16 = 2  # bytes
# Bytes of a layer's activations per token that wait for backward: multiples of hidden and of intermediate size.
ACTIVATIONS = {BF16: (31, 8), FP32: (34, 16)}
TOKENS_PER_BATCH = 8192  # of the scoring pass
HEAD = 3 * 512 * 2**20  # on a GPU: logits of a chunk, their exponentials and their gradient
STORED_PER_TOKEN = 8  # ids and text of a rollout in Parquet, which compresses them; an upper bound
SCORES_PER_RESPONSE = 8  # bytes of a float64


def memory(config: RunConfig, models: Models, lengths: Lengths) -> dict[str, float]:
    """Bytes that each kind of step needs on a GPU, with every response as long as `max_new_tokens` allows."""
    longest = Lengths(lengths.prompt, config.generation.max_new_tokens)
    judges, generate = _judges(models), generation_memory(config, models, longest)
    score, train = scoring_memory(config, models, longest), training_memory(config, models, longest)
    on_policy = config.algorithm.on_policy
    return {
        "start": max(generate + judges, score),  # it loads the judge first, to check it
        "generate": 0.0 if on_policy else generate,
        "score": 0.0 if on_policy else score,
        "train": train + (judges if on_policy else 0.0),
        "evaluate": max(generate, score),
    }


def bytes_of(config: RunConfig) -> int:
    """Bytes of a number in forward passes; GPUs have bf16."""
    return FP32 if config.policy.precision == "fp32" else BF16


def weights_memory(config: RunConfig, models: Models) -> float:
    """The policy's weights: fp32 and their bf16 casts; those that LoRA freezes have one copy, beside fp32 adapters."""
    number = bytes_of(config)
    if config.training.lora:
        return number * models.policy.parameters + FP32 * models.adapter
    return (FP32 + (number if number == BF16 else 0)) * models.policy.parameters


def generation_memory(config: RunConfig, models: Models, lengths: Lengths) -> float:
    """Weights, and the cache of the responses that are drawn at once; `vllm` waits where one does not fit."""
    engine = config.generation.engine
    if engine.reads_files:
        return engine_weights(config, models) + cache(config, models, lengths)
    return weights_memory(config, models) + getattr(engine, "batch_size", 1) * cache(config, models, lengths)


def engine_weights(config: RunConfig, models: Models) -> float:
    """The policy's weights in an engine of its own."""
    return bytes_of(config) * (models.policy.parameters + models.adapter)


def cache(config: RunConfig, models: Models, lengths: Lengths) -> float:
    """Keys and values of one response and its prompt."""
    shape = models.policy
    return bytes_of(config) * (lengths.prompt + lengths.response) * shape.layers * shape.kv


def scoring_memory(config: RunConfig, models: Models, lengths: Lengths) -> float:
    """One policy at a time, the judges beside it, and one layer's activations of a batch."""
    group = lengths.prompt + config.generation.responses * lengths.response
    layer = max(TOKENS_PER_BATCH, group) * _layer(models.policy, bytes_of(config))
    return weights_memory(config, models) + _judges(models) + layer + HEAD


def training_memory(config: RunConfig, models: Models, lengths: Lengths) -> float:
    """Weights, their gradients and moments, and the activations of a micro-batch."""
    settings, shape, number = config.training, models.policy, bytes_of(config)
    trained = models.adapter if settings.lora else shape.parameters
    state = (FP32 + MOMENTS[settings.optimizer]) * trained
    tokens, anchor, rows = tokens_trained(config, lengths), 0.0, settings.micro_batch_size
    if config.algorithm.on_policy:
        tokens, anchor = lengths.prompt + lengths.response, FP32 * trained  # there, a micro-batch counts responses
    else:  # a process has its share of a step's prompts at most
        step = min(config.prompts.per_iteration, settings.batch_size)
        rows = min(rows, math.ceil(step / settings.world))
    layer = _layer(shape, number)
    kept = FP32 * shape.hidden * shape.layers + layer if settings.gradient_checkpointing else layer * shape.layers
    activations = rows * tokens * kept + HEAD
    if settings.world == 1:
        return weights_memory(config, models) + state + anchor + activations
    # Each process loads all weights and then keeps its share; two layers at a time are gathered, and cast where they
    # are trained. Beside an adapter, each machine has all weights.
    frozen = bool(settings.lora)
    whole = number * shape.parameters + FP32 * models.adapter if frozen else FP32 * shape.parameters
    gathered = 2 * (number if frozen else FP32 + BF16) * shape.parameters / shape.layers
    return max(whole, (whole + state) / shares(settings) + gathered + activations)


def _judges(models: Models) -> float:
    """Bytes of the judges' weights."""
    precisions = [getattr(judge, "precision", "auto") for judge, _ in models.judges]
    numbers = [FP32 if precision == "fp32" else BF16 for precision in precisions]
    return sum(number * shape.parameters for number, (_, shape) in zip(numbers, models.judges, strict=True))


def _layer(shape: Shape, number: int) -> float:
    """Bytes of one layer's activations per token."""
    hidden, intermediate = ACTIVATIONS[number]
    return hidden * shape.hidden + intermediate * shape.intermediate


@dataclass(frozen=True)
class Stored:
    """Bytes in the datastore."""

    start: float  # the base policy as published, and the reference's responses
    iteration: float  # the policy, its optimiser's state, and rollouts

    def total(self, iterations: int, *, start: bool = True) -> float:
        """Of a whole run, or of its iterations alone."""
        return (self.start if start else 0.0) + iterations * self.iteration


def stored(config: RunConfig, models: Models, lengths: Lengths) -> Stored:
    """What a run leaves in the store."""
    n, k, m = config.prompts.per_iteration, config.generation.responses, config.evaluation.responses
    trained = models.adapter if config.training.lora else models.policy.parameters
    held_out = _rollout(config.prompts.held_out, m, lengths)
    kept = held_out + (FP32 + MOMENTS[config.training.optimizer]) * trained
    if config.algorithm.on_policy:
        kept += FP32 * trained  # the anchor
    else:  # as generated, and again with the scores
        kept += 2 * _rollout(n, k, lengths) + SCORES_PER_RESPONSE * n * k * (k + 3)
    return Stored(models.published * models.policy.parameters + held_out, kept)


def _rollout(n: int, k: int, lengths: Lengths) -> float:
    return STORED_PER_TOKEN * n * (lengths.prompt + k * lengths.response)
