"""Labelled pairs of responses, read from lines of JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import files
from components.prompts.records import parse, read_record

LABELS = ("chosen", "rejected")
MOST_LINES = 10  # bad ones that an error shows


@dataclass(frozen=True)
class LabelledPair:
    """Two responses to a prompt."""

    prompt: Prompt
    chosen: str  # the better one, as people say
    rejected: str


def read_pairs(path: Path) -> list[LabelledPair]:
    """The pairs of a file of lines `{"prompt" or "messages", "chosen", "rejected"}`, or of one packed by gzip.

    Responses are text, or chat turns of which the last, the assistant's, is taken. Raises PromptError for a file that
    cannot be read or has no pairs, and one that lists the lines that cannot be used.
    """
    found: list[LabelledPair] = []
    bad: list[str] = []
    for number, line in enumerate(files.read(str(path), path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            pair = _pair(parse(line))
        except PromptError as reason:
            bad.append(f"line {number}: {reason}")
            continue
        found.append(replace(pair, prompt=replace(pair.prompt, id=f"line {number}")))
    if bad:
        rest = [f"… and {len(bad) - MOST_LINES} more"] if len(bad) > MOST_LINES else []
        lines = "\n  ".join([*bad[:MOST_LINES], *rest])
        raise PromptError(f"{path}: {len(bad)} of {len(bad) + len(found)} lines cannot be used:\n  {lines}")
    if not found:
        raise PromptError(f'{path}: is empty. Write {{"prompt": "…", "chosen": "…", "rejected": "…"}} on each line.')
    return found


def _pair(record: Any) -> LabelledPair:
    if not isinstance(record, dict):
        raise PromptError('is no object. Write {"prompt": "…", "chosen": "…", "rejected": "…"}.')
    given = [name for name in ("prompt", "messages") if record.get(name) is not None]
    if len(given) != 1:
        keys = ", ".join(record) or "none"
        raise PromptError(f"has {len(given)} of `prompt` and `messages`; its keys: {keys}. Give one of the two.")
    prompt = read_record(record, leave_out=LABELS).prompt
    chosen, rejected = (_response(record, name) for name in LABELS)
    if chosen == rejected:
        raise PromptError("chosen and rejected are the same text. Remove the line.")
    return LabelledPair(prompt, chosen, rejected)


def _response(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if isinstance(value, list) and value and isinstance(value[-1], dict) and value[-1].get("role") == "assistant":
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise PromptError(f"{name}: is missing or no text. Write a response, or turns that end with the assistant's.")
    return value
