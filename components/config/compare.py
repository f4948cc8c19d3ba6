"""The section `compare`: arms that start from one base policy and spend one budget, judged by one judge.

An arm is written as what differs from the rest of the config: `{algorithm: {name: jbond}, training: {epochs: 2}}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic.config import JsonDict

from components.config.errors import ConfigError
from components.config.marks import Shared
from components.config.schema import Section, validated

MOST_ARMS = 500
LONGEST_NAME = 40
ARM_NAME = f"[A-Za-z0-9][A-Za-z0-9_.+-]{{0,{LONGEST_NAME - 1}}}"  # which can be part of a file's name
PLUGINS = {"algorithm", "engine"}  # replaced as a whole: the settings of one mean nothing to another


def _alone(key: str, other: str) -> dict[str, Any]:
    """JSON schema of a section with one of two keys."""
    return {"required": [key], "properties": {key: {"type": "number"}, other: {"type": "null"}}}


class Budget(Section):
    """What each arm may spend over the whole run, evaluation not counted."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_alone("samples", "seconds"), _alone("seconds", "samples")]})

    samples: PositiveInt | None = Field(None, description="responses drawn for training")
    seconds: PositiveFloat | None = Field(None, description="time of generate, score and train, one shard at a time")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.samples is None) == (self.seconds is None):
            raise ValueError("give either samples or seconds.")
        return self


class ArmGeneration(Section):
    """How an arm draws the responses that it trains on."""

    responses: int | None = Field(
        None, description="K, responses per prompt", json_schema_extra={"type": "integer", "minimum": 2}
    )
    engine: dict[str, Any] | None = Field(None, description="in the place of the other one, as a whole")


_COUNT: JsonDict = {"type": "integer", "minimum": 1}


class ArmPrompts(Section):
    """How many prompts an arm uses."""

    per_iteration: int | None = Field(
        None, description="n; with a budget it follows from that", json_schema_extra=_COUNT
    )
    shards: int | None = Field(None, description="parallel tasks per iteration", json_schema_extra=_COUNT)


class Arm(Section):
    """One side of a comparison; what it leaves out is as in the rest of the config."""

    share: float = Field(1.0, gt=0, le=1, description="of the budget")
    algorithm: dict[str, Any] | None = Field(None, description="in the place of the other one, as a whole")
    training: dict[str, Any] | None = Field(None, description="settings of training that differ")
    generation: ArmGeneration = ArmGeneration()
    prompts: ArmPrompts = ArmPrompts()

    @field_validator("share", mode="before")
    @classmethod
    def _is_some(cls, share: Any) -> Any:
        if share == 0 and not isinstance(share, bool):
            raise ValueError("0 leaves the arm nothing to draw. Remove the arm, or give it a share above 0, up to 1.")
        return share

    @field_validator("algorithm", "training", mode="before")
    @classmethod
    def _is_a_section(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("None cannot be used. Write a mapping of settings, or leave it out.")
        return value

    def over(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a config with this arm's own in their place."""
        return _merged(values, self.model_dump(exclude_unset=True, exclude={"share"}))


class CompareConfig(Section):
    """A comparison."""

    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0, 1, 2],
        min_length=1,
        description="of sampling and training; the base policy is made with the run's own seed",
        json_schema_extra={"uniqueItems": True},
    )
    arms: dict[str, dict[str, Any]] = Field(
        min_length=1,
        max_length=MOST_ARMS,
        json_schema_extra={"propertyNames": {"pattern": f"^{ARM_NAME}$"}},
        description="by name, what of each differs from the rest of the config; "
        "`sweep: {training.epochs: [1, 2]}` means an arm for each value, of several keys for each choice",
    )
    budget: Budget | None = Field(None, description="absent: prompts.per_iteration counts as written")
    levels: list[Annotated[float, Field(gt=0.5, lt=1)]] | None = Field(
        None, description="win rates of the table; absent: from the data"
    )

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds} holds a seed twice, which would count as two runs. Keep one.")
        return seeds

    @field_validator("arms")
    @classmethod
    def _can_be_file_names(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if bad := [name for name in arms if not re.fullmatch(ARM_NAME, name)]:
            raise ValueError(
                f"{bad[0]!r} cannot name an arm. Use up to {LONGEST_NAME} letters, digits, and any of . _ + -"
            )
        return arms

    def share(self, name: str) -> float:
        """An arm's share of the budget."""
        return validated(Arm, self.arms[name]).share

    def arm(self, name: str, shared: Mapping[str, Shared]) -> Arm:
        """An arm by its name. Raises ConfigError for what cannot differ between arms, `shared`, line by line."""
        values = self.arms[name]
        sections = {name: value for name, value in values.items() if isinstance(value, dict)}
        keys = [*values, *(f"{section}.{key}" for section, inside in sections.items() for key in inside)]
        if same := [key for key in keys if key in shared]:
            raise ConfigError("\n".join(f"{k}: cannot differ between arms: {shared[k].why}." for k in same))
        if self.budget is None and "share" in keys:
            raise ConfigError("share: there is no budget to share. Add compare.budget, or remove the share.")
        if self.budget is not None and "prompts.per_iteration" in keys:
            raise ConfigError("prompts.per_iteration: follows from compare.budget. Remove one of the two.")
        return validated(Arm, values)


def may_differ(key: str) -> bool:
    """Whether a key of a config is one that an arm may have too."""
    section, *inside = key.split(".")
    sections: dict[str, type[Section]] = {"generation": ArmGeneration, "prompts": ArmPrompts}
    if section in sections and inside:
        return inside[0] in sections[section].model_fields
    return section in Arm.model_fields


def prompts_within(budget: float, per_prompt: float, *, iterations: int, batch_size: int, unit: str) -> int:
    """n, the prompts of each of T iterations, that a budget is enough for.

    Args:
        budget: samples or seconds over all iterations.
        per_prompt: what one prompt costs in one iteration.
        iterations: T.
        batch_size: fewer prompts than that would not make an optimiser step.
        unit: "samples" or "seconds", for the message.

    Raises:
        ConfigError: the budget is not enough for a batch.
    """
    prompts = int(budget / (iterations * per_prompt))
    if prompts < batch_size:
        raise ConfigError(
            f"prompts.per_iteration: {budget:,.10g} {unit} over {iterations} iterations at {per_prompt:.3g} a prompt "
            f"are {prompts} prompts, less than a batch of {batch_size}. Give the arm "
            f"{math.ceil(batch_size * iterations * per_prompt):,} {unit} or more, or lower its training.batch_size."
        )
    return prompts


def _merged(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in own.items():
        inside = values.get(key)
        if isinstance(value, dict) and isinstance(inside, dict) and key not in PLUGINS:
            merged[key] = _merged(inside, value)
        else:
            merged[key] = value
    return merged
