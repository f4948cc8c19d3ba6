"""How many floating-point operations a run takes, estimated from its config and the sizes of its models.

The rules are the usual ones (Kaplan et al., arXiv 2001.08361): a token that is read or generated takes 2 operations per
parameter, one that is trained 6. Attention's own products are left out: at 8 B parameters and 2,000 tokens they add
3 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.algorithms import Algorithm, OnPolicyAlgorithm
from components.judges import Judge
from components.judges._base import PairwiseModelJudge
from components.run_config import RunConfig

SMALLEST = 12 * 128**2  # parameters of the smallest usual decoder, `Shape.of_size` with one layer


@dataclass(frozen=True)
class Shape:
    """What costs depend on of a model."""

    parameters: float
    layers: int
    hidden: int  # numbers per token between layers
    intermediate: int  # numbers per token inside an MLP
    kv: int  # numbers per token and layer in the cache, keys and values together

    @classmethod
    def of_size(cls, parameters: float) -> Shape:
        """A usual decoder of that many parameters: N = 12 · layers · hidden², hidden = 128 · layers, 4 heads a key."""
        layers = max(1, round((parameters / SMALLEST) ** (1 / 3)))
        hidden = 128 * layers
        return cls(parameters, layers, hidden, 7 * hidden // 2, hidden // 2)


@dataclass(frozen=True)
class Models:
    """Sizes of the models that a run uses."""

    policy: Shape
    adapter: float  # parameters that LoRA trains; 0 without it
    published: int  # bytes of a base weight in its files
    judges: Sequence[tuple[Judge, Shape]]  # those with a model


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt and of a response."""

    prompt: float
    response: float


@dataclass(frozen=True)
class Work:
    """Floating-point operations, by how well a GPU is used at them."""

    generate: float = 0.0  # token by token: bound by memory
    read: float = 0.0
    train: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.generate + other.generate, self.read + other.read, self.train + other.train)

    def __mul__(self, times: float) -> Work:
        return Work(times * self.generate, times * self.read, times * self.train)

    @property
    def total(self) -> float:
        """Operations of all kinds."""
        return self.generate + self.read + self.train

    def seconds(self, peak: float, utilisation: Mapping[str, float]) -> float:
        """GPU seconds at `peak` operations a second and the share of them that each kind reaches."""
        flops = {"generate": self.generate, "read": self.read, "train": self.train}
        return sum(flops[kind] / (peak * share) for kind, share in utilisation.items())


def work(config: RunConfig, models: Models, lengths: Lengths) -> dict[str, Work]:
    """The operations of each kind of step, all of a run's iterations together."""
    n, k, m = config.prompts.per_iteration, config.generation.responses, config.evaluation.responses
    held_out, t = config.prompts.held_out, config.iterations
    on_policy = config.algorithm.on_policy
    # In the first iteration policy and reference are one.
    passes = 2 * t - (config.start_from is None)
    drawn = _generated(models, n, k, lengths) * t
    scored = _read(models, n, k, lengths) * passes + _judged(models, n, k, lengths) * t
    answers = _generated(models, held_out, m, lengths)
    judged = _read(models, held_out, m, lengths) * 2 + _judged(models, held_out, 3 * m, lengths, policies=3)
    return {
        "start": answers + _judged(models, held_out, m, lengths),
        "generate": Work() if on_policy else drawn,
        "score": Work() if on_policy else scored,
        "train": _trained(config, models, lengths) * t,
        "evaluate": (answers + judged) * math.ceil(t / config.evaluation.every),
    }


def _generated(models: Models, n: int, k: int, lengths: Lengths) -> Work:
    """k responses to each of n prompts, which are read once."""
    flops = 2 * models.policy.parameters
    return Work(generate=flops * n * k * lengths.response, read=flops * n * lengths.prompt)


def _read(models: Models, n: int, k: int, lengths: Lengths) -> Work:
    """Log-probs of k responses to each of n prompts."""
    return Work(read=2 * models.policy.parameters * n * (lengths.prompt + k * lengths.response))


def _judged(models: Models, n: int, k: int, lengths: Lengths, policies: int = 1) -> Work:
    """Judging k responses of so many policies to each of n prompts."""
    flops = 0.0
    for judge, shape in models.judges:
        tokens = lengths.prompt + lengths.response * (2 if isinstance(judge, PairwiseModelJudge) else 1)
        flops += 2 * shape.parameters * judge.model_inputs(n, k, policies) * tokens
    return Work(read=flops)


def _trained(config: RunConfig, models: Models, lengths: Lengths) -> Work:
    """One iteration's training; on-policy algorithms draw and judge there too."""
    settings, algorithm, n = config.training, config.algorithm, config.prompts.per_iteration
    # Backward costs a forward pass for the activations and another for the weights, of which frozen ones have none;
    # with checkpointing, the forward pass happens twice.
    flops = models.policy.parameters * ((4 if settings.lora else 6) + 2 * settings.gradient_checkpointing)
    train = Work(train=flops * n * tokens_trained(config, lengths))
    if isinstance(algorithm, OnPolicyAlgorithm):
        train += (
            _generated(models, n, 3, lengths)
            + _judged(models, n, 3, lengths, policies=2)
            + _read(models, n, 1, lengths)
        )
    return train * settings.epochs


def responses_trained(config: RunConfig) -> int:
    """How many responses to a prompt an optimiser step reads."""
    algorithm, k = config.algorithm, config.generation.responses
    return algorithm.select(np.zeros((1, k))).shape[1] if isinstance(algorithm, Algorithm) else 3


def busiest(config: RunConfig, at_once: int = 1) -> int:
    """Rounds of `at_once` prompts in an epoch of that process which has the most.

    The processes deal each step's prompts, and all of them wait for the one with the most. The last step of an epoch
    has what is left.
    """
    settings = config.training
    steps, rest = divmod(config.prompts.per_iteration, settings.batch_size)
    most = [math.ceil(prompts / settings.world) for prompts in (settings.batch_size, rest)]
    return steps * math.ceil(most[0] / at_once) + math.ceil(most[1] / at_once)


def busy(config: RunConfig) -> float:
    """The share of training's GPU hours in which GPUs have prompts; a process uses one, and some wait for others."""
    gpus = config.training.nodes * config.num_gpus("train")
    return config.prompts.per_iteration / (gpus * busiest(config))


def tokens_trained(config: RunConfig, lengths: Lengths) -> float:
    """Tokens of a prompt and its responses in training, where checkpointed or spread layers cannot share the prompt."""
    responses, settings = responses_trained(config), config.training
    prompts = responses if settings.gradient_checkpointing or settings.world > 1 else 1
    return prompts * lengths.prompt + responses * lengths.response
