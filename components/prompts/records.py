"""One record of a prompt source, as bytes of JSON or as a row of columns, read into a prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts.plain import ESCAPED, plain

ROLES = ("system", "user", "assistant")
BESIDE = {"id", "answer", "metadata"}  # keys with a meaning of their own, wherever the prompt is
USUAL: dict[
    str, tuple[tuple[type, ...], str]
] = {  # where the prompt is if no column is named, of what type, and what to do about another
    "prompt": ((str, list), "Write text or a list of turns {role, content}."),
    "messages": ((list,), "Write a list of turns {role, content}."),
}
NAMED: tuple[tuple[type, ...], str] = (
    (str, list),
    "Write text or a list of turns {role, content}, or name another column in prompts.column.",
)

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Record:
    """What a record holds."""

    prompt: Prompt
    answered: bool  # the conversation continued with the assistant's answer, which the prompt leaves out


def turns(prompt: Prompt) -> Turns:
    """The messages in a form that can be compared and hashed."""
    return tuple((turn["role"], turn["content"]) for turn in prompt.messages)


def read_record(raw: Any, column: str | None = None, leave_out: Collection[str] = ()) -> Record:
    """The prompt that a record holds: bytes of a JSON line, or a row as a mapping.

    `column` is the key of the prompt, text or chat turns; without one that is `prompt` or `messages`. Real datasets
    keep conversations with their answer, so of turns in a named column the assistant's last one is left out. Keys in
    `leave_out` are not looked at. All values are those that JSON gives back; see `plain`.

    Raises PromptError with the reason and the remedy.
    """
    record = _decode(raw, leave_out)
    messages, answered = _messages(record, column)
    answer = _answer(record)
    prompt = Prompt("", messages, answer, _metadata(record, {column} if column else USUAL.keys()))
    return Record(replace(prompt, id=_id(record, prompt)), answered)


def _decode(raw: Any, leave_out: Collection[str]) -> dict[str, Any]:
    """The record's keys that are not null."""
    if isinstance(raw, bytes):
        raw = parse(raw)
    if not isinstance(raw, dict):
        raise PromptError(f'is {_kind(raw)}, not an object. Write {{"prompt": "…"}}.')
    try:
        return {key: plain(raw[key], key) for key in raw if raw[key] is not None and key not in leave_out}
    except RecursionError as error:
        raise PromptError("holds lists or mappings too deep inside each other. Write them flatter.") from error


def parse(line: bytes) -> Any:
    """What a line of JSON holds. Raises PromptError, also for a key given twice."""
    try:
        text = line.decode("utf-8-sig")
        raw = json.loads(text, object_pairs_hook=_without_twins)
        if "\\u" in text:  # an escape can smuggle in half a surrogate pair, which no tokenizer takes
            json.dumps(raw, ensure_ascii=False).encode()
    except PromptError:
        raise
    except UnicodeDecodeError as error:
        raise PromptError(f"is not UTF-8 JSON ({error}){_undecodable(line)}. Save the file as UTF-8.") from error
    except (json.JSONDecodeError, UnicodeEncodeError, RecursionError) as error:
        raise PromptError(f"is not UTF-8 JSON ({error}). Write one object on each line.") from error
    except ValueError as error:  # Python's limit on the digits of a number
        raise PromptError("holds a number of thousands of digits. Write it as text, or shorter.") from error
    return raw


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a line; JSON itself lets the last of two equal keys win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in found if keys.count(key) > 1)
        raise PromptError(f"{twin}: stands there twice. Keep one of the two.")
    return found


def _undecodable(line: bytes) -> str:
    """Which key's value holds the bytes that are not UTF-8, as far as the line is JSON otherwise."""
    try:
        found = json.loads(line.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return ""
    keys = [key for key, value in found.items() if _escaped(key, value)] if isinstance(found, dict) else []
    return f", in `{keys[0].encode('utf-8', 'replace').decode()}`" if keys else ""


def _escaped(*values: Any) -> bool:
    return bool(ESCAPED.search(json.dumps(values, ensure_ascii=False)))


def _answer(record: dict[str, Any]) -> str | None:
    answer = record.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | None):
        raise PromptError(f"answer: is {_kind(answer)}. Write it as text or as a number.")
    return None if answer is None else str(answer)


def _messages(record: dict[str, Any], column: str | None) -> tuple[tuple[dict[str, str], ...], bool]:
    """The prompt's turns, and whether an answer that followed them is left out."""
    name = column or _usual_column(record)
    found = _found(record, name, column)
    if isinstance(found, str):
        found = [{"role": "user", "content": found}]
    turns = tuple(_turn(turn, f"{name}[{index}]") for index, turn in enumerate(found))
    answered = column is not None and turns[-1]["role"] == "assistant"
    if answered:
        turns = turns[:-1]
    _refuse_end(turns, name, answered)
    if not turns[-1]["content"].strip():
        raise PromptError(f"{column or 'prompt'}: is blank. Write the prompt, or remove the record.")
    return turns, answered


def _refuse_end(turns: tuple[dict[str, str], ...], name: str, answered: bool) -> None:
    """Refuses turns that do not end with the user's."""
    if not turns:
        raise PromptError(f"{name}: holds the assistant's answer alone. Put a turn of the user before it.")
    role = turns[-1]["role"]
    if role != "user":
        answer = f"; prompts.column: {name} leaves an answer out" if role == "assistant" and not answered else ""
        before = " before the answer" if answered else ""
        raise PromptError(f"{name}: the last turn{before} is by the {role}. End with a turn of the user{answer}.")


def _usual_column(record: dict[str, Any]) -> str:
    columns = [name for name in USUAL if name in record]
    if len(columns) > 1:
        raise PromptError("has both `prompt` and `messages`. Keep one of them, or name it in prompts.column.")
    if not columns:
        raise PromptError(
            f"has neither `prompt` nor `messages`; its keys: {_keys(record)}. Rename the one that is meant, or name it "
            "in prompts.column."
        )
    return columns[0]


def _found(record: dict[str, Any], name: str, column: str | None) -> str | list[Any]:
    """What the record has under a name, if it is of a type that can be a prompt."""
    if name not in record:
        raise PromptError(
            f"has no `{name}`; its keys: {_keys(record)}. Add it, or name another column in prompts.column."
        )
    found: str | list[Any] = record[name]
    kinds, remedy = NAMED if column else USUAL[name]
    if not isinstance(found, kinds) or found == []:
        raise PromptError(f"{name}: is {_kind(found)}. {remedy}")
    return found


def _turn(turn: Any, place: str) -> dict[str, str]:
    given = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    if given.keys() != {"role", "content"} or not all(isinstance(value, str) for value in given.values()):
        raise PromptError(f"{place}: is not a mapping of `role` and `content`, both text. Write it so.")
    if given["role"] not in ROLES:
        raise PromptError(f"{place}: role {given['role']!r} is unknown. Use one of: {', '.join(ROLES)}.")
    return {"role": given["role"], "content": given["content"]}


def _metadata(record: dict[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """What stands in `metadata`, and every key that is neither in `columns` nor has a meaning of its own."""
    given = record.get("metadata", {})
    if not isinstance(given, dict):
        raise PromptError(f"metadata: is {_kind(given)}. Write a mapping.")
    other = {key: value for key, value in record.items() if key not in BESIDE and key not in columns}
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


def _keys(record: dict[str, Any]) -> str:
    return ", ".join(record) or "none"


def _kind(value: Any) -> str:
    return "empty" if value in ([], {}, "") else f"of type {type(value).__name__}"
