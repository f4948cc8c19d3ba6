"""What types the metadata of a GGUF file have: the format lets a writer give any type to any name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TEMPLATE = "tokenizer.chat_template"
TEXTS = ("general.architecture", "general.type", "tokenizer.ggml.model", "tokenizer.ggml.pre", TEMPLATE)
LISTS: dict[str, tuple[type, ...]] = {
    "tokenizer.ggml.tokens": (str,),
    "tokenizer.ggml.merges": (str,),
    "tokenizer.ggml.token_type": (int,),
    "tokenizer.ggml.scores": (int, float),
}
SIZES = ("_length", ".attention.head_count")
LARGEST = 10**8  # the product of two such sizes is still a number of bytes


def wrong(fields: Mapping[str, Any]) -> str | None:
    """Name of the first field that is not of the type, or in the range, that its meaning has; None if all are."""
    return next((name for name, value in fields.items() if not (_is_of_type(name, value) and _fits(name, value))), None)


def _is_of_type(name: str, value: Any) -> bool:
    if name in LISTS:
        return isinstance(value, list) and all(isinstance(item, LISTS[name]) for item in value)
    if name in TEXTS or name.startswith(f"{TEMPLATE}."):
        return isinstance(value, str)
    if name.startswith("tokenizer.ggml.add_"):
        return isinstance(value, bool)
    return not name.endswith("_token_id") or type(value) is int


def _fits(name: str, value: Any) -> bool:
    if name.endswith(".rope.freq_base"):
        return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
    if name.endswith("_epsilon"):
        return isinstance(value, (int, float)) and 0 <= value < 1
    if not isinstance(value, int):
        return True
    if name.endswith("_token_id"):
        return value >= 0
    if name.endswith(".attention.head_count_kv"):
        return value > 0
    return not name.endswith(SIZES) or value <= LARGEST
