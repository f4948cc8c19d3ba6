"""One record of a prompt source, as bytes of JSON or as a row of columns, read into a prompt."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

from components.errors import PromptError
from components.records import Prompt

ROLES = ("system", "user", "assistant")
KEYS = {"id", "prompt", "messages", "answer", "metadata"}

Turns = tuple[tuple[str, str], ...]


def turns(prompt: Prompt) -> Turns:
    """The messages in a form that can be compared and hashed."""
    return tuple((turn["role"], turn["content"]) for turn in prompt.messages)


def read_record(raw: Any) -> Prompt:
    """The prompt that a record holds: bytes of a JSON line, or a row as a mapping.

    Raises PromptError with the reason and the remedy.
    """
    return _prompt(_decode(raw))


def _decode(raw: Any) -> dict[str, Any]:
    """The record's keys that are not null."""
    if isinstance(raw, bytes):
        try:
            text = raw.decode("utf-8-sig")
            raw = json.loads(text)
            if "\\u" in text:  # an escape can smuggle in half a surrogate pair, which no tokenizer takes
                json.dumps(raw, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise PromptError(f"is not UTF-8 JSON ({error}). Write one object on each line.") from error
    if not isinstance(raw, dict):
        raise PromptError(f'is {_kind(raw)}, not an object. Write {{"prompt": "…"}}.')
    return {key: value for key, value in raw.items() if value is not None}


def _prompt(record: dict[str, Any]) -> Prompt:
    messages = _messages(record)
    answer = record.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        raise PromptError(f"answer: is {_kind(answer)}. Write it as text or as a number.")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise PromptError(f"answer: is {answer}, not a number. Correct it, or leave `answer` out.")
    answer = None if answer is None else str(answer)
    prompt = Prompt("", messages, answer, _metadata(record))
    return replace(prompt, id=_id(record, prompt))


def _messages(record: dict[str, Any]) -> tuple[dict[str, str], ...]:
    if ("prompt" in record) == ("messages" in record):
        if "prompt" in record:
            raise PromptError("has both `prompt` and `messages`. Keep one of them.")
        found = ", ".join(record) or "none"
        raise PromptError(f"has neither `prompt` nor `messages`; its keys: {found}. Rename the one that is meant.")
    messages = record.get("messages", [{"role": "user", "content": record.get("prompt")}])
    if "prompt" in record and not isinstance(record["prompt"], str):
        raise PromptError(f"prompt: is {_kind(record['prompt'])}. Write text; chat turns belong in `messages`.")
    if not isinstance(messages, list) or not messages:
        raise PromptError(f"messages: is {_kind(messages)}. Write a list of turns {{role, content}}.")
    turns = tuple(_turn(turn, index) for index, turn in enumerate(messages))
    if turns[-1]["role"] != "user":
        raise PromptError(f"messages: the last turn is by the {turns[-1]['role']}. End with a turn of the user.")
    if not turns[-1]["content"].strip():
        raise PromptError("prompt: is blank. Write the prompt, or remove the record.")
    return turns


def _turn(turn: Any, index: int) -> dict[str, str]:
    given = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    if given.keys() != {"role", "content"} or not all(isinstance(value, str) for value in given.values()):
        raise PromptError(f"messages[{index}]: is not a mapping of `role` and `content`, both text. Write it so.")
    if given["role"] not in ROLES:
        raise PromptError(f"messages[{index}]: role {given['role']!r} is unknown. Use one of: {', '.join(ROLES)}.")
    return {"role": given["role"], "content": given["content"]}


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    given = record.get("metadata", {})
    if not isinstance(given, dict):
        raise PromptError(f"metadata: is {_kind(given)}. Write a mapping.")
    other = {key: value for key, value in record.items() if key not in KEYS}
    if twice := sorted(given.keys() & other.keys()):
        raise PromptError(f"metadata: {twice[0]!r} stands inside it and beside it. Rename one of the two.")
    return {**given, **other}


def _id(record: dict[str, Any], prompt: Prompt) -> str:
    """The record's own id, or 16 hex digits of SHA-256 over messages and answer."""
    given = record.get("id")
    if given is None:
        canonical = json.dumps([turns(prompt), prompt.answer], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
    if isinstance(given, bool) or not isinstance(given, str | int) or not str(given).strip():
        raise PromptError(f"id: {given!r} cannot be used. Write text or a whole number, or leave `id` out.")
    return str(given)


def _kind(value: Any) -> str:
    return "empty" if value in ([], {}, "") else f"of type {type(value).__name__}"
