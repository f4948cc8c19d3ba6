"""What a setting means to runs that share something: said where the setting is defined, `Annotated[int, KEPT]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel


@dataclass(frozen=True)
class Kept:
    """A run that continues from another must have the same value.

    It gives the rows of `history` their meaning, or makes the weights and the optimiser's state what they are.
    """


@dataclass(frozen=True)
class Aside:
    """Changes nothing of what an iteration's training computes from its policy and its scored responses."""


@dataclass(frozen=True)
class Shared:
    """The arms of a comparison cannot differ in it."""

    why: str


Mark = TypeVar("Mark", Kept, Aside, Shared)

KEPT, ASIDE = Kept(), Aside()
ONE_POLICY = Shared("all arms start from one base policy")
ONE_TASK = Shared("all arms train on the same prompts and are judged on the same held-out ones")
SAME_STEPS = Shared("all arms go through the same steps")
ANSWERS = Shared("held-out prompts are answered by it too, also by the reference, once for all arms")


def marked(section: type[BaseModel], mark: type[Mark]) -> dict[str, Mark]:
    """The settings with a mark, by dotted key, also those in sections inside."""
    return dict(_marked(section, mark, ""))


def _marked(section: type[BaseModel], mark: type[Mark], before: str) -> Iterator[tuple[str, Mark]]:
    for name, field in section.model_fields.items():
        key = f"{before}{name}"
        yield from ((key, found) for found in field.metadata if isinstance(found, mark))
        for inside in sections(field.annotation):
            yield from _marked(inside, mark, f"{key}.")


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The section that a field holds, also where it may be absent."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
