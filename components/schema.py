"""The base of every config section, and the sentences in which a bad config is reported."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from typing import Annotated, Any, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from components.errors import ConfigError


class Section(BaseModel):
    """A frozen part of the config. Unknown keys are refused and numbers are not guessed from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


TemplateOptions = Annotated[dict[str, Any], AfterValidator(_leave_ours)]  # names that a chat template asks for


def explain(error: ValidationError, known: type[BaseModel]) -> str:
    """One line per problem: `key: value is not …`, with the nearest known key for an unknown one."""
    return "\n".join(_line(problem, known) for problem in error.errors())


def _line(problem: Any, known: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key.{_nearest(problem['loc'], known)}"
    if problem["type"] == "missing":
        return f"{key}: is required."
    if problem["type"] == "value_error":  # a sentence of ours, already whole
        message = str(problem["ctx"]["error"])
        return f"{key}: {message}" if key else message
    if problem["type"] in {"model_type", "dict_type"}:
        return f"{key}: {problem['input']!r} cannot be used. Write a mapping of settings, or leave it out."
    return f"{key}: {problem['input']!r} cannot be used. {problem['msg']}."


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


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `5e-4` is a number, not text, and of a key given twice neither is dropped."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigError(f"{twice[0]}: is given twice in one section. Keep one of the two.")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(text: str) -> dict[str, Any]:
    """A mapping of config sections. Raises ConfigError for anything else."""
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"the config is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"the config must be a mapping of sections, it is {type(raw).__name__}.")
    return raw
