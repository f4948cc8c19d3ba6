"""Groups of the evaluation prompts: those with the same value of the metadata field that the config names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.errors import PromptError
from components.data.records import Prompt

MOST = 50  # groups; more would fill the report with groups of a few prompts
SHOWN = 10  # prompts or fields that an error spells out
KEY = "evaluation.group_by"

Groups = dict[str, NDArray[np.int64]]


def split(prompts: Sequence[Prompt], field: str | None) -> Groups:
    """The rows of each group's prompts, by the group's name, in natural order: a, b2, b10. None without a field.

    Values that read alike are one group: 1 and "1", or texts that differ in white space alone.

    Raises:
        PromptError: a field that no prompt has or that some prompts lack, a value that cannot name a group, or more
            than `MOST` groups.
    """
    if field is None:
        return {}
    _require(prompts, field)
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(_name(prompt, field), []).append(row)
    if len(rows) > MOST:
        raise PromptError(
            f"{KEY}: {field!r} puts the {len(prompts)} evaluation prompts into {len(rows)} groups, and {MOST} is the "
            "most. Name a field with fewer values."
        )
    return {name: np.array(rows[name]) for name in sorted(rows, key=_natural)}


def _require(prompts: Sequence[Prompt], field: str) -> None:
    lacking = [prompt.id for prompt in prompts if _missing(prompt.metadata.get(field))]
    if len(lacking) == len(prompts):
        known = sorted({name for prompt in prompts for name in prompt.metadata if name != field})
        remedy = f"Name one of: {_listed(known)}." if known else "They have no metadata: add a column, or leave it out."
        raise PromptError(f"{KEY}: no evaluation prompt has a field {field!r}. {remedy}")
    if lacking:
        raise PromptError(
            f"{KEY}: {len(lacking)} of {len(prompts)} evaluation prompts have no {field!r}: "
            f"{_listed([repr(name) for name in lacking])}. Add it to their records, or name another field."
        )


def _missing(value: Any) -> bool:
    nan = isinstance(value, float) and math.isnan(value)
    return value is None or nan or (isinstance(value, str) and not value.split())


def _name(prompt: Prompt, field: str) -> str:
    value = prompt.metadata[field]
    if not isinstance(value, str | int | float):
        raise PromptError(
            f"{KEY}: {field!r} of the prompt {prompt.id!r} is of type {type(value).__name__}. "
            "Write text or a number, or name another field."
        )
    return " ".join(str(value).split())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _natural(name: str) -> list[tuple[int, str]]:
    """Text and numbers in turns, numbers by their length first: of any length, where `int` has an end."""
    pieces = re.split(r"(\d+)", name)
    return [(len(p.lstrip("0")), p.lstrip("0")) if at % 2 else (0, p) for at, p in enumerate(pieces)]
