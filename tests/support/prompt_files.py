"""Files of prompts that tests write, and what is read from them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import load


def write(name: str, data: bytes | str, *, packed: bool = False) -> str:
    data = data.encode() if isinstance(data, str) else data
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(gzip.compress(data) if packed else data)
    return name


def lines(*texts: str) -> str:
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts)


def parquet(name: str, **columns: object) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(name)
    return name


def texts(source, *, split="train", **options) -> list[str]:
    return [prompt.text for prompt in load(source, split=split, **options)]


def refusal(source, *, split="train", **options) -> str:
    with pytest.raises(PromptError) as caught:
        load(source, split=split, **options)
    return str(caught.value)


def answers(source, **options) -> list[tuple[str | None, dict]]:
    """Answer and metadata of each prompt."""
    return [(prompt.answer, prompt.metadata) for prompt in load(source, split="train", **options)]


def write_lines(folder: Path, *lines: str, name: str = "prompts.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def ids(items: list[Prompt]) -> list[str]:
    return [prompt.id for prompt in items]
