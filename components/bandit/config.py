"""The config of the laboratory: one schema that owns every default, and checks that name key, value and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from components.bandit.methods import METHODS, Method
from components.bandit.settings import SETTINGS, Setting
from components.config.errors import ConfigError
from components.config.schema import KeyedError, Section, cut, explain, validated
from components.config.strict_yaml import load_yaml

Named = TypeVar("Named", bound=Section)


class SamplingConfig(Section):
    """The log-linear bandit on which the error of a sampled iteration is measured."""

    prompts: PositiveInt = Field(16, description="n, prompts of the bandit")
    responses: int = Field(30, ge=2, description="Y")
    features: PositiveInt = Field(6, description="d")
    group: int = Field(4, ge=2, description="K, responses per sampled prompt")
    samples: list[PositiveInt] = Field(
        [256, 512, 1024, 2048, 4096, 8192, 16384, 32768], min_length=2, description="M, responses in all"
    )
    repeats: PositiveInt = Field(20, description="independent iterations per seed and M")
    beta: PositiveFloat = Field(0.1, description="KL strength of the game")
    eta: PositiveFloat = Field(1.0, description="step size")

    @field_validator("samples")
    @classmethod
    def _possible(cls, samples: list[int], known: ValidationInfo) -> list[int]:
        group, features = known.data.get("group", 1), known.data.get("features", 0)
        uneven = [m for m in samples if m % group]
        if uneven:
            raise ValueError(f"{uneven[0]} is no multiple of the group of {group}. Use multiples.")
        if min(samples) < 2 * features:
            raise ValueError(f"{min(samples)} are too few to fit {features} features. Use {2 * features} or more.")
        return samples


class LabConfig(Section):
    """A whole run of the laboratory: every method plays every setting with every seed."""

    seeds: list[int] = Field([0, 1, 2], min_length=1, description="each draws its own bandits")
    iterations: int = Field(150, ge=1, le=100_000, description="T")
    methods: dict[str, SerializeAsAny[Method]] = Field(
        default_factory=lambda: {name: method(name=name) for name, method in METHODS.items()},
        min_length=1,
        description="label: settings of the method; `name` is the label unless given",
    )
    settings: dict[str, SerializeAsAny[Setting]] = Field(
        default_factory=lambda: {"reward": SETTINGS["reward"](name="reward")},  # the one that every method can play
        min_length=1,
        description="label: settings of the bandit; `name` is the label unless given",
    )
    sampling: SamplingConfig = SamplingConfig()

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds} names a seed twice. Remove the repetition.")
        return seeds

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, given: Any) -> Any:
        return _resolved(given, METHODS)

    @field_validator("settings", mode="before")
    @classmethod
    def _known_settings(cls, given: Any) -> Any:
        return _resolved(given, SETTINGS)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if problems := list(_misfits(self.methods, self.settings)):
            raise ValueError("\n".join(problems))
        return self


def parse(text: str) -> dict[str, Any]:
    """YAML text to a config with every default filled in, as plain data.

    Raises ConfigError that names every bad key, its value and the remedy.
    """
    return validated(LabConfig, load_yaml(text)).model_dump()


def cautions(config: LabConfig) -> list[str]:
    """A sentence for each method whose results want one."""
    found = {label: method.caution() for label, method in config.methods.items()}
    return [f"methods.{label}: {caution}" for label, caution in found.items() if caution]


def players(setting: Setting, methods: Mapping[str, Method]) -> list[str]:
    """Labels of the methods that play a setting, in the order of the config."""
    return [label for label in methods if setting.methods is None or label in setting.methods]


def _misfits(methods: Mapping[str, Method], settings: Mapping[str, Setting]) -> Iterator[str]:
    """A sentence for each method that a setting names in vain or that cannot play it."""
    for where, setting in settings.items():
        for label in setting.methods or ():
            if label not in methods:
                yield f"settings.{where}.methods: there is no method {label!r}. Use some of: {', '.join(methods)}."
        playing = players(setting, methods)
        unordered = [m for m in playing if methods[m].needs_order and not setting.ordered]
        if unordered:
            able = [m for m in playing if m not in unordered]
            remedy = f"Name the others: `methods: [{', '.join(able)}]`." if able else "Add a method such as wind."
            yield (
                f"settings.{where}: {', '.join(unordered)} cannot play it, best-of-N needs a reward order and this is "
                f"a preference matrix. {remedy}"
            )
        for label in playing:
            if reason := methods[label].unusable(setting.beta):
                yield f"methods.{label}: in settings.{where}, {reason}"


def _resolved(given: Any, table: Mapping[str, type[Named]]) -> Any:
    """Instances by label, of the class that `name`, or else the label, names in the table."""
    if not isinstance(given, dict):
        return given
    found, problems = {}, []
    for label, values in given.items():
        try:
            found[label] = values if isinstance(values, Section) else _build(label, values, table)
        except ConfigError as error:
            problems += [f"{label}{line}" for line in str(error).splitlines()]
    if problems:
        raise KeyedError("\n".join(problems))
    return found


def _build(label: str, values: Any, table: Mapping[str, type[Named]]) -> Named:
    """One instance. Raises ConfigError, whose lines follow the label."""
    if not isinstance(values, dict):
        raise ConfigError(f": {cut(repr(values))} cannot be used. Write a mapping of settings, or leave it out.")
    name = values.get("name", label)
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f": there is no {name!r}. Give a `name`, one of: {', '.join(table)}.")
    try:
        return table[name].model_validate({**values, "name": name})
    except ValidationError as error:
        lines = explain(error, table[name]).splitlines()
        raise ConfigError("\n".join(f".{line}" for line in lines)) from error
