"""The base of every config section, and the sentences in which a bad config is reported."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, WithJsonSchema

from components.config.errors import ConfigError

Known = TypeVar("Known", bound=BaseModel)


class Section(BaseModel):
    """A frozen part of the config. Unknown keys are refused and numbers are not guessed from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


MOST_LINES, MOST_SHOWN = 20, 200  # problems that are told, and characters of a value in one of them
# How a value of a type is written, where people write others.
_AS_WRITTEN = {
    "bool_type": " Write true or false.",
    "int_type": " Write digits alone, such as 1000.",
    "float_type": " Write digits, as in 0.5 or 1e-6.",
    "list_type": " Write a list, as in [one, two].",
    "string_type": " Put text that looks like a number in quotes.",
}

_OURS: tuple[str, ...] = (
    "add_generation_prompt",
    "continue_final_message",
    "conversation",
    "messages",
    "padding",
    "return_dict",
)
_OURS += ("return_tensors", "return_assistant_tokens_mask", "tokenize", "tokenizer_kwargs", "truncation", "max_length")


def _leave_ours(options: dict[str, Any]) -> dict[str, Any]:
    if ours := sorted(options.keys() & set(_OURS)):
        raise ValueError(f"{ours[0]!r} is set by the run itself. Leave it out; options are for the chat template.")
    return options


# Names that a chat template asks for.
TemplateOptions = Annotated[
    dict[str, Any],
    AfterValidator(_leave_ours),
    WithJsonSchema({"type": "object", "additionalProperties": True, "propertyNames": {"not": {"enum": list(_OURS)}}}),
]


# Stop strings, and characters of one: each token that is drawn is a search for all of them.
MOST_STOPS, LONGEST_STOP = 64, 200
UNFINISHED = "\ufffd"  # what a tokenizer shows of a character whose last bytes are still to come


def _can_stop(stop: list[str]) -> list[str]:
    if len(stop) > MOST_STOPS:
        raise ValueError(f"{len(stop)} stop strings are too many. Use {MOST_STOPS} or fewer.")
    for text in stop:
        if not text:
            raise ValueError("'' is in every text. Remove it, or write what ends a response.")
        if len(text) > LONGEST_STOP:
            raise ValueError(f"{text[:20]!r}… has {len(text)} characters. Use {LONGEST_STOP} or fewer.")
        if UNFINISHED in text:
            raise ValueError(f"{text!r} holds U+FFFD, which stands for a character that is not whole yet. Remove it.")
        if stop.count(text) > 1:
            raise ValueError(f"{text!r} is given twice. Keep one of the two.")
    return stop


StopStrings = Annotated[list[str], AfterValidator(_can_stop)]


class KeyedError(ConfigError):
    """Problems of a section that was validated on its own, a line each, which begins with a key inside it."""


def validated(known: type[Known], values: Any) -> Known:
    """A section of the config. Raises ConfigError with a line for each problem."""
    try:
        return known.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, known)) from error


def explain(error: ValidationError, known: type[BaseModel]) -> str:
    """One line per problem: `key: value is not …`, with the nearest known key for an unknown one; at most 20."""
    problems = _without_unions(error.errors())
    lines = [_line(problem, known) for problem in problems[:MOST_LINES]]
    more = [f"… and {len(problems) - MOST_LINES:,} more."] if len(problems) > MOST_LINES else []
    return "\n".join([*lines, *more])


# How pydantic names the alternatives of a value inside its location.
_ALTERNATIVE = re.compile(
    r"(literal|list|dict|tuple|set|function-\w+|nullable)\[.*\]|constrained-\w+|str|int|float|bool"
)


def _without_unions(problems: Sequence[Any]) -> list[Any]:
    """One problem for a value that may be one of several things; where it nearly is one, what is wrong inside."""
    found: dict[Any, list[Any]] = {}
    for number, problem in enumerate(problems):
        places = [i for i, part in enumerate(problem["loc"]) if _ALTERNATIVE.fullmatch(str(part))]
        before = problem["loc"][: places[0]] if places else problem["loc"]
        inside = problem["loc"][places[0] + 1 :] if places else ()
        key = before if places else number
        found.setdefault(key, []).append({**problem, "loc": (*before, *inside), "inside": bool(inside)})
    told = []
    for those in found.values():
        within = [problem for problem in those if problem["inside"]]
        remedy = next((p for p in those if p["type"] in _AS_WRITTEN), those[0])
        told += within or [{**remedy, "msg": _either([problem["msg"] for problem in those])}]
    return told


def _either(messages: Sequence[str]) -> str:
    first, *others = dict.fromkeys(messages)
    return " or ".join([first, *(message.removeprefix("Input should be ") for message in others)])


def _line(problem: Any, known: type[BaseModel]) -> str:
    key = ".".join(cut(str(part)) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key.{_nearest(problem['loc'], known)}"
    if problem["type"] == "missing":
        return f"{key}: is required."
    if problem["type"] == "value_error":  # a sentence of ours, already whole
        error = problem["ctx"]["error"]
        if isinstance(error, KeyedError):
            return "\n".join(f"{key}.{line}" for line in str(error).splitlines())
        return f"{key}: {error}" if key else str(error)
    shown = cut(repr(problem["input"]))
    if problem["type"] in {"model_type", "dict_type"}:
        return f"{key}: {shown} cannot be used. Write a mapping of settings, or leave it out."
    return f"{key}: {shown} cannot be used. {problem['msg']}.{_remedy(problem)}"


def _remedy(problem: Any) -> str:
    plain = isinstance(problem["input"], str) and problem["input"].isdecimal()  # a number in quotes is plain to see
    return "" if plain else _AS_WRITTEN.get(problem["type"], "")


def cut(text: str) -> str:
    """A value as messages show it."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _nearest(location: tuple[str | int, ...], known: type[BaseModel]) -> str:
    section: Any = known
    for part in location[:-1]:
        field = section.model_fields.get(part) if hasattr(section, "model_fields") else None
        annotation = getattr(field, "annotation", None)
        # An optional section is a union with None.
        section = next((s for s in (annotation, *get_args(annotation)) if hasattr(s, "model_fields")), None)
    options = list(getattr(section, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), options, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known keys: {', '.join(options)}." if options else ""
