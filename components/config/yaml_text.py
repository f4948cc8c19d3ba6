"""YAML written so that `strict_yaml` reads the same values, whichever version of YAML a reader follows."""

from __future__ import annotations

import re
from typing import Any

import yaml

# Text that no version takes for anything else, unless PyYAML quotes it. 1e5, 0o17 and their like begin with no letter.
PLAIN = re.compile(r"[A-Za-z/…][A-Za-z0-9_./… -]*")


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 reads as a number, where PyYAML's 1.1 does not, and what ends a line in one only."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if PLAIN.fullmatch(text) else '"')


_Dumper.add_representer(str, _text)


def dump_yaml(value: Any, *, flow: bool = False, width: int = 100) -> str:
    """Plain values as YAML, keys in their order; `flow`: in braces, on one line if `width` allows."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow
    )
    return text
