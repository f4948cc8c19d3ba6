"""The key `sweep` of the section `compare`: an arm for each choice of a value for each key."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.config import registry
from components.config.compare import LONGEST_NAME, MOST_ARMS
from components.config.schema import Section, cut

NAME = "algorithm.name"
_WORDS = {True: "true", False: "false", None: "null"}  # as YAML writes them


def with_sweep(compare: Mapping[str, Any], algorithm: Mapping[str, Any]) -> dict[str, Any]:
    """A `compare` section with the arms that its `sweep` means beside its own.

    `sweep: {training.learning_rate: [1e-6, 1e-5], algorithm.eta: [10, 1000]}` means four arms, one for each choice of a
    value for each key. Those below `algorithm` change the settings of the run's own `algorithm`.

    Raises ValueError for what is no mapping of keys to lists of values, for a value given twice, for a key inside
    another, for more than MOST_ARMS, for an algorithm with settings of another, and for arms whose names `_names`
    cannot tell apart.
    """
    swept = _checked(compare["sweep"])
    rest = {key: value for key, value in compare.items() if key != "sweep"}
    written = {} if rest.get("arms") is None else rest["arms"]
    if not isinstance(written, dict):
        return rest  # whose arms are refused as what they are
    choices = list(itertools.product(*swept.values()))
    arms = dict(zip(_names(swept, choices), (_arm_of(swept, one, algorithm) for one in choices), strict=True))
    if len(arms) < len(choices) or arms.keys() & written.keys():
        raise ValueError("compare.sweep: two arms would have one name. Write them out in compare.arms.")
    for arm in arms.values() if NAME in swept else ():
        _check_algorithm(arm["algorithm"], swept[NAME])
    return {**rest, "arms": {**arms, **written}}


def _checked(swept: Any) -> dict[str, list[Any]]:
    """What is swept. Raises ValueError as `with_sweep`."""
    if not isinstance(swept, dict) or not swept or not all(isinstance(v, list) and v for v in swept.values()):
        raise ValueError("compare.sweep: write a list of values for each key, `{training.epochs: [1, 2]}`.")
    if around := [(key, inner) for key in swept for inner in swept if inner.startswith(f"{key}.")]:
        key, inner = around[0]
        raise ValueError(f"compare.sweep: {key} has {inner} in it, and an arm can have one of the two. Remove one.")
    if (count := math.prod(map(len, swept.values()))) > MOST_ARMS:
        raise ValueError(f"compare.sweep: means {count:,} arms. Leave {MOST_ARMS} or fewer.")
    for key, values in swept.items():
        for place, value in enumerate(values):
            if any(_equal(value, other) for other in values[:place]):
                shown = cut(repr(value))
                raise ValueError(f"compare.sweep: {key} has {shown} twice, which would be two equal arms. Keep one.")
    return swept


def _check_algorithm(settings: Mapping[str, Any], names: Sequence[Any]) -> None:
    """Raises ValueError for settings that the algorithm lacks, as an arm that changes a name alone keeps the run's own.

    A name of no algorithm is refused later, as everywhere.
    """
    name = settings["name"]
    if name not in registry.names("algorithms"):
        return
    known = registry.find("algorithms", name, Section).model_fields
    if strange := [key for key in settings if key not in known]:
        sections = ", ".join(f"{{name: {one}}}" for one in names)
        raise ValueError(
            f"compare.sweep: {NAME} gives {name} the setting {strange[0]}, which it does not have. Sweep whole "
            f"sections, each with settings of its own: `algorithm: [{sections}]`."
        )


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are one: 10 and 10.0 are, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _names(keys: Iterable[str], choices: Sequence[Sequence[Any]]) -> list[str]:
    """The arms' names, such as `learning_rate-1e-05_epochs-2`, by the first labels of the keys with which all fit.

    Where no labels are short enough, the names lose their ends, for values are as long as they are.
    """
    labels = _suffixes(list(keys))
    for shorter in _ever_shorter(labels):
        names = [_named(shorter, choice) for choice in choices]
        if max(map(len, names)) <= LONGEST_NAME and len(set(shorter)) == len(shorter):
            return names
    return [_named(labels, choice)[:LONGEST_NAME] for choice in choices]


def _suffixes(keys: Sequence[str]) -> list[str]:
    """The fewest last parts of each dotted key that end no other of them: `eta` of `algorithm.eta`."""
    found = []
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        found.append(next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key))
    return found


def _ever_shorter(labels: Sequence[str]) -> Iterator[list[str]]:
    """Labels as they are; initials for those of several words, `lr` for `learning_rate`; and fewer letters of each.

    Labels with the same initials stay words.
    """
    yield list(labels)
    initials = ["".join(word[:1] for word in re.split("[_.]", label)) for label in labels]
    short = [
        first if len(first) > 1 and initials.count(first) == 1 else label
        for first, label in zip(initials, labels, strict=True)
    ]
    yield short
    for letters in range(max(map(len, short)) - 1, 0, -1):
        yield [label[:letters] for label in short]


def _named(labels: Iterable[str], choice: Sequence[Any]) -> str:
    """One label and value after another, without what cannot be part of a file's name."""
    pairs = (f"{label}-{_text(value)}" for label, value in zip(labels, choice, strict=True))
    return "_".join(re.sub(r"[^\w.+-]", "", pair, flags=re.ASCII) for pair in pairs)


def _text(value: Any) -> str:
    return _WORDS[value] if value is None or isinstance(value, bool) else str(value)


def _arm_of(keys: Iterable[str], choice: Sequence[Any], algorithm: Mapping[str, Any]) -> dict[str, Any]:
    """The arm with one value for each key."""
    arm: dict[str, Any] = {}
    for key, value in zip(keys, choice, strict=True):
        *sections, name = key.split(".")
        inside = arm
        for section in sections:
            inside = inside.setdefault(section, copy.deepcopy(dict(algorithm)) if section == "algorithm" else {})
        inside[name] = value
    return arm
