"""What stages hand to each other: manifests and figures, as plain values that Metaflow keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.store import Manifest


@dataclass(frozen=True)
class Started:
    """What `start` hands to the iterations."""

    policy: Manifest  # base policy and reference
    prompts: Manifest  # train.jsonl and evaluation.jsonl
    evaluated: Manifest  # the reference's responses to the evaluation prompts
    reward: float  # their mean score
    precision: str  # resolved: "fp32" or "bf16"


@dataclass(frozen=True)
class TrainInput:
    """What an iteration's training begins with."""

    policy: Manifest
    optimizer: Manifest | None  # its state and what else runs on from iteration to iteration; None at first
    shards: Sequence[Manifest]  # of prompts
    scored: Sequence[Manifest]  # the shards' scored rollouts
    iteration: int  # 1-based, over all runs that this one continues from
    since: int = 0  # iterations of those runs


@dataclass(frozen=True)
class Node:
    """One of the machines that train together; by default the only one."""

    index: int = 0  # the first has the result
    count: int = 1
    meeting: str | None = None  # where their processes meet, a URL for torch.distributed; None: in a folder of this one
    tasks: tuple[int, ...] = ()  # process ids of the others' tasks, where this one's has started them


@dataclass(frozen=True)
class TrainResult:
    """What `train` hands on."""

    policy: Manifest
    optimizer: Manifest  # its state and, for on-policy algorithms, the anchor
    figures: dict[str, float]  # means over the iteration's optimiser steps, `ties.share`, and `learning.figures`
    warnings: str  # of `ties.in_training` and `learning.warnings`
    counts: dict[str, int]  # micro_batch_size at its end; responses, tokens_generated if training itself drew any
    seconds_before: float  # spent by earlier attempts on what this one did not have to do again
    unfinished: str  # key of the state saved on the way, for `forget_unfinished` once this is recorded


@dataclass(frozen=True)
class EvaluateInput:
    """What an evaluation compares."""

    policy: Manifest
    reference: Manifest
    prompts: Manifest
    by_reference: Manifest  # its responses to the evaluation prompts
    by_last: Manifest  # those of the last policy evaluated
    iteration: int
    since: int = 0  # iterations of the runs that this one continues from
