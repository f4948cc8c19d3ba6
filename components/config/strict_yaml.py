"""YAML as people write it: scalars by YAML 1.2's core schema, keys always text, and nothing that is dropped or grows.

PyYAML follows YAML 1.1, where `no` is false, `010` is 8 and `1:30` is 90; of it only the grammar is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from components.config.errors import ConfigError
from components.config.yaml_scalars import KINDS, PLAIN, scalar

MOST_CHARACTERS = 200_000  # of a config, counted with what its anchors repeat
MOST_LEVELS = 50

_TAG = "tag:yaml.org,2002:"
_TAGS = {"map": yaml.MappingNode, "seq": yaml.SequenceNode, **dict.fromkeys((PLAIN, *KINDS), yaml.ScalarNode)}
_MERGE = "<<"


def load_yaml(text: str) -> dict[str, Any]:
    """A mapping of config sections.

    Raises ConfigError, with key or line, for what is no such YAML, keys that stand twice, other tags than !!str, !!int,
    !!float, !!bool, !!null, !!map and !!seq, anchors inside
    themselves, and for more than MOST_CHARACTERS or MOST_LEVELS.
    """
    node = _compose(_not_too_long(text))
    if node is not None:
        _Measure().size(node)
    raw = None if node is None else _value(node, "")
    if not isinstance(raw, dict):
        remedy = (
            "It is empty, write its sections" if raw is None else "Write `key: value`, with a space behind the colon"
        )
        raise ConfigError(f"the config must be a mapping of sections, it is {type(raw).__name__}. {remedy}.")
    return raw


def _not_too_long(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"the config has more than {MOST_CHARACTERS:,} characters. Name a config file, and keep data in files of "
            "their own."
        )
    return text


def read_text(path: Path) -> str:
    """The text of a config file. Raises ConfigError for what is no UTF-8 text file, or too long."""
    try:
        with path.open(encoding="utf-8") as file:  # which may have no end
            return _not_too_long(file.read(MOST_CHARACTERS + 1))
    except ConfigError as error:
        raise ConfigError(f"{path!s:.200}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path!s:.200}: cannot be read ({error.strerror}). Name a config file.") from error
    except ValueError as error:  # another encoding; a NUL in the name
        raise ConfigError(f"{path!s:.200}: is not UTF-8 text ({error}). Name a config file, saved as UTF-8.") from error


class _Reader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Text to nodes, each with its line; scalars are not interpreted yet."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.levels = 0

    def resolve(self, kind: type[yaml.Node], _: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and not implicit[0]:
            return f"{_TAG}str"
        return _TAG + next(name for name, known in _TAGS.items() if known is kind)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.levels == MOST_LEVELS:
            raise yaml.YAMLError(f"line {self.line + 1} is nested in more than {MOST_LEVELS} levels. Write fewer.")
        self.levels += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.levels -= 1
        return node


def _compose(text: str) -> yaml.Node | None:
    try:
        return _Reader(text).get_single_node()
    except ReaderError as error:
        line, character = text.count("\n", 0, error.position) + 1, chr(error.character)
        raise ConfigError(
            f"the config is not valid YAML: line {line} holds the character {character!r}. Remove it, or save the file "
            "as UTF-8 text."
        ) from error
    except yaml.YAMLError as error:
        said = str(error).replace('"<unicode string>"', "the config")
        raise ConfigError(f"the config is not valid YAML: {said}{_remedy(said)}") from error
    except (ValueError, OverflowError) as error:  # escapes of no character, and version numbers of no end
        raise ConfigError(f"the config is not valid YAML: {error}. Correct the escape \\U or %YAML.") from error


def _remedy(said: str) -> str:
    if "'\\t'" in said:
        return "\nIndent with spaces, not with tabs."
    if "but found another document" in said:
        return "\nKeep one document: remove the line `---` and what is not meant."
    return ""


class _Measure:
    """Sizes of nodes with all that their anchors repeat; each node is looked at once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}  # characters and levels by the node's identity
        self.open: set[int] = set()

    def size(self, node: yaml.Node) -> tuple[int, int]:
        """Characters and levels. Raises ConfigError for too many, and for a node inside itself."""
        if id(node) in self.open:
            raise _error(node, "", "an anchor is used inside itself. Write the values out")
        if id(node) not in self.known:
            self.open.add(id(node))
            sizes = [(len(node.value), 0)] if isinstance(node, yaml.ScalarNode) else map(self.size, _inside(node))
            characters, levels = 1, 0
            for more, below in sizes:
                characters, levels = characters + more, max(levels, below)
            self.open.discard(id(node))
            self.known[id(node)] = characters, levels + 1
            if characters > MOST_CHARACTERS or levels >= MOST_LEVELS:
                limit = f"{MOST_LEVELS} levels" if levels >= MOST_LEVELS else f"{MOST_CHARACTERS:,} characters"
                raise _error(node, "", f"what its anchors repeat makes more than {limit}. Repeat less")
        return self.known[id(node)]


def _inside(node: yaml.Node) -> list[yaml.Node]:
    return [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else list(node.value)


def _error(node: yaml.Node, key: str, problem: str) -> ConfigError:
    return ConfigError(f"{key or 'the config'}: {problem} (line {node.start_mark.line + 1}).")


def _value(node: yaml.Node, key: str) -> Any:
    """What a node means; `key` is where it stands, for messages."""
    kind = node.tag.removeprefix(_TAG)
    if not isinstance(node, _TAGS.get(kind, ())):
        raise _error(node, key, f"the tag {node.tag.replace(_TAG, '!!')} has no meaning here. Leave it out")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, key)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, f"{key}[{i}]") for i, item in enumerate(node.value)]
    try:
        return scalar(node.value, kind)
    except ValueError as error:
        raise _error(node, key, str(error)) from error


def _mapping(node: yaml.MappingNode, key: str) -> dict[str, Any]:
    """The pairs, above those of the mappings that `<<` merges in. Raises ConfigError for a key that stands twice."""
    lines: dict[str, int] = {}
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name, line = _name(name_node, key), name_node.start_mark.line + 1
        if name in lines:
            raise ConfigError(
                f"{name}: is given twice in one section. Keep one of the two. They stand in lines {lines[name]} and "
                f"{line}."
            )
        lines[name] = line
        inside = f"{key}.{name}" if key else name
        value = _value(value_node, inside)
        if name != _MERGE or name_node.style:
            own[name] = value
            continue
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                raise _error(value_node, inside, "takes a mapping or a list of them. Name an anchor of a mapping")
            merged = {**source, **merged}  # of several, the first has the say
    return {**merged, **own}


def _name(node: yaml.Node, key: str) -> str:
    """A key, which is text whatever it looks like."""
    if not isinstance(node, yaml.ScalarNode) or not node.value or node.tag.removeprefix(_TAG) not in (PLAIN, "str"):
        raise _error(node, key, "a key must be text, without a tag. Write `name: value`")
    try:
        return str(scalar(node.value, "str"))
    except ValueError as error:
        raise _error(node, key, str(error)) from error
