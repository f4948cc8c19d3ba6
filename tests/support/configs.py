"""The least a config holds, changes to it, and how one is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from components.config.errors import ConfigError
from components.run_config import parse

MINIMAL = """
policy: {model: path/to/model}
prompts: {train: prompts.jsonl}
judge: {name: verifier, function: "package.module:score"}
"""


def merged(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    nested = {k: merged(base[k], v) for k, v in extra.items() if isinstance(v, dict) and k in base}
    return {**base, **extra, **nested}


def with_settings(extra: str) -> str:
    """The minimal config with settings added or replaced."""
    return yaml.safe_dump(merged(yaml.safe_load(MINIMAL), yaml.safe_load(extra)))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)
