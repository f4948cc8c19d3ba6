"""A policy's answers to a benchmark's prompts: one each, by the likeliest token at every place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.evaluation.benchmarks import BenchmarkError
from components.generation import Engine, Sampling
from components.judges import _thinking as thinking
from components.runtime.progress import Progress, silent
from components.runtime.scratch import scratch
from components.stages import sampling

if TYPE_CHECKING:
    from components.policy.model import Policy


@dataclass(frozen=True)
class Answering:
    """How answers are made."""

    engine: Engine
    max_new_tokens: int
    cut_thinking: bool = False  # whether what stands between <think> and </think> is no part of an answer


@dataclass(frozen=True)
class Answer:
    """A policy's answer to a prompt."""

    text: str
    tokens: int  # thinking included
    finished: bool  # not cut off by `max_new_tokens`


def answer(
    model: PolicyConfig, prompts: Sequence[Prompt], settings: Answering, progress: Progress = silent
) -> list[Answer]:
    """One answer to each prompt.

    Args:
        model: which, and how prompts are written for it.
        prompts: those of the benchmark.
        settings: how.
        progress: called with the number of answers.

    Raises:
        PolicyError: a model that cannot be loaded or cannot read these prompts.
        BenchmarkError: prompts and answers of that length exceed its positions.
    """
    with scratch("benchmark") as folder:
        policy = _load(model, folder, settings)
        _check_lengths(policy, prompts, settings.max_new_tokens)
        drawn = sampling.generate(
            policy,
            settings.engine,
            prompts,
            responses=1,
            sampling=Sampling(settings.max_new_tokens, top_k=1),
            seed=0,
            purpose="evaluate",
            iteration=0,
            progress=progress,
        )
    texts, ends = drawn.texts, drawn.prompt_ends or [""] * len(prompts)
    if settings.cut_thinking:
        marks = thinking.MARKS
        texts = [thinking.cut(text, *marks, prompt_end=end) for text, end in zip(texts, ends, strict=True)]
    counts = zip(texts, drawn.tokens.lengths.tolist(), drawn.finished[:, 0].tolist(), strict=True)
    return [Answer(*one) for one in counts]


def _load(model: PolicyConfig, folder: Path, settings: Answering) -> Policy:
    """The policy; without its weights for an engine that reads the files."""
    import torch

    from components.generation import _caching
    from components.policy import model as policies

    directory = _directory(model, folder / "policy")
    without = torch.device("meta") if settings.engine.reads_files else None
    marks = thinking.MARKS if settings.cut_thinking else ()
    policy = policies.load(directory, model, precision=model.precision, device=without, frozen=True, marks=marks)
    return policy if without else replace(policy, caching=_caching.choose(policy))


def _directory(model: PolicyConfig, target: Path) -> Path:
    """Where the model's files lie; those of a GGUF file are converted into `target`."""
    from components.policy import files, gguf_files, sources

    path = sources.locate(model)
    return gguf_files.convert(path, target, model) if path.is_file() else files.fetch(model)


def _check_lengths(policy: Policy, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    from components.policy import model as policies

    try:
        policies.check_lengths(policy, prompts, max_prompt_tokens=sys.maxsize, max_new_tokens=max_new_tokens)
    except PolicyError as error:
        raise BenchmarkError(str(error).replace("generation.max_new_tokens", "--max-new-tokens")) from error
