"""The judges that ask an HTTP endpoint, at an address of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge

NAMES = ("http", "openai")
PROMPTS = [Prompt("one", ({"role": "user", "content": "p"},))]
PAIR = [["x", "y"]]


def asking(name: str, **defaults: Any) -> Callable[..., Judge]:
    """`made(address, **settings)`: the judge of this name, which asks one question at a time unless told otherwise."""
    if name == "openai":
        pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")

    def made(address: str, **settings: Any) -> Judge:
        own = {"url": address} if name == "http" else {"base_url": f"{address}/v1", "model": "m"}
        return build("judges", {"name": name, **own, "concurrency": 1, **defaults, **settings}, Judge)

    return made


def refusal(made: Judge) -> str:
    """The message with which a judge refuses what it is told of a pair."""
    with pytest.raises(JudgeError) as raised:
        made.judge(PROMPTS, PAIR)
    return str(raised.value)
