"""Settings on the command line, `training.learning_rate=1e-5`, over those of a config file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from components.config.errors import ConfigError
from components.config.strict_yaml import MOST_LEVELS, load_yaml
from components.config.yaml_text import dump_yaml

OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w]*(\.[\w-]+)*)=(?P<value>.*)", re.DOTALL)
# Of the options that Metaflow's `run` and `argo-workflows create` have: those without a value, and those that add up.
_SWITCHES: tuple[str, ...] = ("auto-emit-argo-events", "notify-on-error", "notify-on-success")
_SWITCHES += ("enable-heartbeat-daemon", "enable-error-msg-capture")
SHOWN = 200  # characters of a word in a message
FLAGS = {"--generate-new-token", "--only-json"}
FLAGS |= {f"--{no}{name}" for name in _SWITCHES for no in ("", "no-")}
SEVERAL = {"--tag", "--with", "--incident-io-metadata"}


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
            raise ConfigError(
                f"{_cut(assignment)}: is no setting. Write KEY=VALUE, such as training.learning_rate=1e-5."
            )
        _set(values, found["key"], _value(found["key"], found["value"]))
    return dump_yaml(values)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings, and options of Metaflow with their values, such as `--tag team=nlp`, of a command line.

    Raises ConfigError for a word that is neither, and for an option given twice of which Metaflow heeds the last.
    """
    settings: list[str] = []
    options: list[str] = []
    names: set[str] = set()
    value_follows = False
    for word in words:
        if value_follows or (word.startswith("-") and word.strip("-")):
            options.append(word)
            value_follows = not value_follows and _takes_a_value(word, names)
        elif OVERRIDE.fullmatch(word):
            settings.append(word)
        else:
            raise ConfigError(
                f"{_cut(word)}: is neither a setting nor an option. Write settings as KEY=VALUE, options as "
                "--max-workers 4, and the file of the config as --config FILE."
            )
    return settings, options


def _takes_a_value(word: str, before: set[str]) -> bool:
    """Whether the next word belongs to an option; it joins those `before`."""
    name, equals, _ = word.partition("=")
    if name in before - SEVERAL:
        raise ConfigError(f"{name}: is given twice, and only the last would count. Give it once.")
    if len("--c") < len(name) < len("--config") and "--config".startswith(name):
        raise ConfigError(f"{name}: is no option. Write --config FILE.")
    before.add(name)
    return not equals and name not in FLAGS


def _value(key: str, text: str) -> Any:
    name = key.rpartition(".")[2]
    try:
        read = load_yaml(f"{name}: {text}\n")
        if read.keys() != {name}:
            raise ConfigError("another key follows in it")
    except ConfigError as error:
        raise ConfigError(
            f"{_cut(key)}: {_cut(repr(text))} is no YAML value ({str(error).splitlines()[0]}). Put text with special "
            "signs in quotes."
        ) from error
    return read[name]


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    if len(sections) >= MOST_LEVELS:
        raise ConfigError(f"{_cut(key)}: is nested in more than {MOST_LEVELS} levels. Write fewer.")
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


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
