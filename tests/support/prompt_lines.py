"""Prompts in lines of JSON, and how one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import load


def ids(items: list[Prompt]) -> list[str]:
    return [prompt.id for prompt in items]


def write(tmp_path: Path, *lines: str, name: str = "prompts.jsonl") -> str:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def refusal(source: str, **options: bool) -> str:
    with pytest.raises(PromptError) as caught:
        load(source, split="train", **options)
    return str(caught.value)
