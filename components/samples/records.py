"""What the page shows, as values that JSON takes; None where a figure is not known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.data.records import Prompt
from components.evaluation.groups import MOST

LONGEST = 300  # characters of a metadata field: datasets carry whole answers there


@dataclass(frozen=True)
class Asked:
    """A prompt."""

    id: str
    messages: list[tuple[str, str]]  # role and content
    answer: str | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class Batch:
    """K responses of one policy to each of n prompts; response k of prompt i is row i·K + k."""

    iteration: int  # that drew them, or after which the policy was evaluated; 0: the reference
    k: int
    prompts: list[int]  # n rows of the side's prompts
    texts: list[str]
    truncated: list[bool]
    tokens: list[int]
    reward: list[float | None]
    parts: dict[str, list[float | None]]  # of the judge's scores
    win_rate: list[float | None] | None = None  # leave-one-out, against the others of the group
    log_ratio: list[float | None] | None = None  # log pi_old/pi_ref, nats per response
    logp: list[float | None] | None = None  # under the policy that drew them, nats per response


@dataclass(frozen=True)
class Side:
    """The training prompts or the held-out ones, with the responses to them."""

    prompts: list[Asked]
    fields: list[str]  # of the metadata, those that put the prompts into a few groups
    batches: list[Batch]


@dataclass(frozen=True)
class Samples:
    """A run's samples."""

    run: str
    notes: list[str]  # what is not there, and why
    trained: Side
    held_out: Side  # its first batch is the reference's


def asked(prompt: Prompt) -> Asked:
    """A prompt with its metadata as text; what is longer than LONGEST is cut."""
    given = {name: _text(value) for name, value in prompt.metadata.items() if value is not None}
    shown = {name: text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for name, text in given.items()}
    turns = [(turn["role"], turn["content"]) for turn in prompt.messages]
    return Asked(prompt.id, turns, prompt.answer, {name: text for name, text in shown.items() if text})


def _text(value: Any) -> str:
    """As `evaluation.groups` names a group; lists and mappings as JSON."""
    text = str(value) if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())


def fields(prompts: Sequence[Asked], first: str | None) -> list[str]:
    """Metadata fields that group prompts: at most MOST values, and fewer than prompts unless it is `first`."""
    values: dict[str, set[str]] = {}
    for prompt in prompts:
        for name, text in prompt.metadata.items():
            values.setdefault(name, set()).add(text)
    few = [name for name, found in values.items() if name == first or len(found) <= min(MOST, len(prompts) - 1)]
    whole = [name for name in few if not any(len(text) == LONGEST for text in values[name])]
    return sorted(whole, key=lambda name: (name != first, name))
