"""Finds algorithms, judges and engines by name: module `components.<package>.<name>` holds the one class.

Adding one is adding a file; nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from components.config.errors import ConfigError
from components.config.schema import KeyedError, Section, cut, explain

Base = TypeVar("Base", bound=Section)


def names(package: str) -> list[str]:
    """Names that `components.<package>` offers, sorted."""
    module = importlib.import_module(f"components.{package}")
    return sorted(m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_"))


def find(package: str, name: str, base: type[Base]) -> type[Base]:
    """The subclass of `base` that module `components.<package>.<name>` defines.

    Raises ConfigError when there is no such module, TypeError for one that is no such plug-in.
    """
    if name not in names(package):
        raise ConfigError(f"there is no {name!r}. Use one of: {', '.join(names(package))}.")
    module = importlib.import_module(f"components.{package}.{name}")
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base)]
    own = [c for c in found if c.__module__ == module.__name__]
    if len(own) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {base.__name__}, it defines {len(own)}")
    if own[0].model_fields["name"].default != name:  # by which an editor tells the plug-ins' settings apart
        raise TypeError(f"{module.__name__}: {own[0].__name__} must have `name: Literal[{name!r}] = {name!r}`")
    return own[0]


def unnamed(package: str) -> str:
    """What to do about a section that names no plug-in."""
    return f"give a `name`. Use one of: {', '.join(names(package))}."


def build(package: str, settings: Any, base: type[Base]) -> Base:
    """An instance from a config section `{name: …, **its own settings}`.

    Raises ConfigError for a missing name; pydantic's ValidationError for settings it does not take.
    """
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise ConfigError(unnamed(package))
    return find(package, settings["name"], base).model_validate(settings)


def resolve(package: str, settings: Any, base: type[Base]) -> Base:
    """`build` inside the validation of a larger section. Raises ConfigError, by keys for settings it does not take."""
    try:
        return build(package, settings, base)
    except ValidationError as error:
        raise KeyedError(explain(error, find(package, settings["name"], base))) from error


@dataclass(frozen=True)
class PlugIn:
    """Marks a field of a section: what YAML says of it, `{name: …, **its own settings}`, becomes the plug-in itself.

    `Annotated[SerializeAsAny[Judge], PlugIn("judges", Judge)]`: such a field holds a Judge, with its own defaults and
    checked by its own schema, and is written out as it was read.
    """

    package: str
    base: type[Section]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._resolve, handler(source))

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        known = [find(self.package, name, self.base) for name in names(self.package)]
        schemas = [handler(plug_in.__pydantic_core_schema__) for plug_in in known]
        return {"anyOf": [{**one, "required": ["name", *one.get("required", [])]} for one in schemas]}

    def _resolve(self, settings: Any) -> Section:
        if isinstance(settings, self.base):
            return settings
        if not isinstance(settings, dict):
            raise ConfigError(f"{cut(repr(settings))} cannot be used. Write a mapping of settings, or leave it out.")
        return resolve(self.package, settings, self.base)
