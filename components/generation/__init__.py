"""Generation engines: each one module that samples responses from a policy, found by its name in the config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from components.config.schema import Section
from components.config.sections import GenerationConfig
from components.data.records import Ragged, TokenIds
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from components.policy.model import Policy
    from components.store import Store


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: of softmax(logits / temperature), by min_p, top_k and top_p in that order."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: GenerationConfig) -> Self:
        """As the config says."""
        limits = settings.max_new_tokens, settings.temperature, settings.top_p, settings.top_k, settings.min_p
        return cls(*limits, stop=tuple(settings.stop))


@dataclass(frozen=True)
class Samples:
    """K sampled responses to each of n prompts, row i·K + k."""

    tokens: Ragged  # n·K sequences; a finished one ends with EOS, or with the token that completes a stop string
    finished: NDArray[np.bool_]  # (n, K), False where max_new_tokens cut the response off
    # (n, K), nats at temperature 1, as the engine's own forward has them: to be compared with the trainer's, never
    # trained on. None from an engine that samples with the trainer's forward.
    logp: NDArray[np.float64] | None = None
    # fp32, of each token in `tokens.values`, nats, where they are what the trainer's forward gives (to 1e-5): they
    # spare it that pass. None where it would compute otherwise.
    token_logp: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ModelFiles:
    """A causal language model for an engine that reads files."""

    folder: Path
    key: str  # its section of the config, for messages
    precision: str  # "fp32" or "bf16", of weights and forward pass
    positions: int | None  # the most tokens that it reads; None: any number
    code: bool  # whether code that it brings may run


class Engine(Section, ABC):
    """Settings of an engine, and its sampler."""

    name: str
    # It draws from the files in `policy.folder` and not from the model in memory, which may be left unloaded. It tells
    # progress that nothing is done as soon as it has started: that is no time that responses take.
    reads_files: ClassVar[bool] = False

    @property
    def gpus(self) -> int:
        """How many GPUs it spreads a model over."""
        return 1

    @abstractmethod
    def check(self) -> None:
        """Raises EngineError when something that the engine needs is missing."""

    def keeping(self, store: Store) -> Self:  # noqa: ARG002 - of engines that prepare themselves at length
        """This engine, which keeps in the store what spares later tasks time; here nothing."""
        return self

    @abstractmethod
    def sample(
        self,
        policy: Policy,
        prompts: Sequence[TokenIds],
        seeds: NDArray[np.uint64],
        sampling: Sampling,
        progress: Progress = silent,
    ) -> Samples:
        """Samples responses.

        Args:
            policy: the policy, its model loaded unless the engine reads the files.
            prompts: n token id sequences, special tokens included.
            seeds: (n, K), one per response; equal seeds and prompts give equal responses.
            sampling: limits and temperature.
            progress: called with the number of responses done.
        """

    def next_logprobs(
        self, model: ModelFiles, rows: Sequence[TokenIds], tokens: Sequence[int], progress: Progress = silent
    ) -> NDArray[np.float64]:
        """Log-probs of some tokens as the next one after each row, at temperature 1.

        Only engines that read files do this; the others run on a model that is loaded, which can be asked itself.

        Args:
            model: what reads.
            rows: N token id sequences, special tokens included.
            tokens: ids of T tokens.
            progress: called with the number of rows done.

        Returns:
            (N, T), nats.

        Raises:
            EngineError: the engine does not take the model or its settings.
            FloatingPointError: for logits that are not finite.
        """
        raise NotImplementedError
