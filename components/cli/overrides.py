"""Settings on the command line, `training.learning_rate=1e-5`, over those of a config file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from components.config.errors import ConfigError
from components.config.strict_yaml import load_yaml

OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w]*(\.[\w-]+)*)=(?P<value>.*)", re.DOTALL)


def with_overrides(text: str, given: Sequence[str]) -> str:
    """The YAML of a config with other values in it.

    Args:
        text: of the config file.
        given: each KEY=VALUE, the key with dots as in error messages, the value as YAML has it, such as
            `1e-5`, `null`, `[a, b]` or `{name: dpo}`. Later ones win.

    Raises:
        ConfigError: for what is no such assignment, a value that is no YAML, and a key below something that has none.
    """
    values = load_yaml(text)
    for assignment in given:
        found = OVERRIDE.fullmatch(assignment)
        if found is None:
            raise ConfigError(f"{assignment}: is no setting. Write KEY=VALUE, such as training.learning_rate=1e-5.")
        _set(values, found["key"], _value(found["key"], found["value"]))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings and all else of a command line; what follows an option, as in `--tag team=nlp`, is its value."""
    settings: list[str] = []
    others: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        of_option = before.startswith("--") and "=" not in before
        ours = not word.startswith("-") and not of_option and OVERRIDE.fullmatch(word)
        (settings if ours else others).append(word)
    return settings, others


def _value(key: str, text: str) -> Any:
    name = key.rpartition(".")[2]
    try:
        read = load_yaml(f"{name}: {text}\n")
        if read.keys() != {name}:
            raise ConfigError("another key follows in it")
    except ConfigError as error:
        raise ConfigError(
            f"{key}: {text!r} is no YAML value ({str(error).splitlines()[0]}). Put text with special signs in quotes."
        ) from error
    return read[name]


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    inside: Any = values
    for i, section in enumerate(sections):
        if inside.get(section) is None:
            inside[section] = {}
        inside = inside[section]
        if not isinstance(inside, dict):
            where = ".".join(sections[: i + 1])
            raise ConfigError(
                f"{key}: {where} is {inside!r} in the config and has no settings. Give {where} as a whole."
            )
    inside[name] = value
