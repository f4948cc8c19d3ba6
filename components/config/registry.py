"""Finds algorithms, judges and engines by name: module `components.<package>.<name>` holds the one class.

Adding one is adding a file; nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, TypeVar

from pydantic import ValidationError

from components.config.errors import ConfigError
from components.config.schema import Section, explain

Base = TypeVar("Base", bound=Section)


def names(package: str) -> list[str]:
    """Names that `components.<package>` offers, sorted."""
    module = importlib.import_module(f"components.{package}")
    return sorted(m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_"))


def find(package: str, name: str, base: type[Base]) -> type[Base]:
    """The subclass of `base` that module `components.<package>.<name>` defines.

    Raises ConfigError when there is no such module.
    """
    if name not in names(package):
        raise ConfigError(f"there is no {name!r}. Use one of: {', '.join(names(package))}.")
    module = importlib.import_module(f"components.{package}.{name}")
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base)]
    own = [c for c in found if c.__module__ == module.__name__]
    if len(own) != 1:
        raise TypeError(f"{module.__name__} must define exactly one {base.__name__}, it defines {len(own)}")
    return own[0]


def build(package: str, settings: Any, base: type[Base]) -> Base:
    """An instance from a config section `{name: …, **its own settings}`.

    Raises ConfigError for a missing name; pydantic's ValidationError for settings it does not take.
    """
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise ConfigError(f"give a `name`. Use one of: {', '.join(names(package))}.")
    return find(package, settings["name"], base).model_validate(settings)


def fill(key: str, package: str, settings: Any, base: type[Section]) -> dict[str, Any]:
    """A config section with its plug-in's defaults. Raises ConfigError for what the plug-in does not take, by key."""
    try:
        return build(package, settings, base).model_dump()
    except ValidationError as error:
        lines = explain(error, find(package, settings["name"], base)).splitlines()
        raise ConfigError("\n".join(f"{key}.{line}" for line in lines)) from error
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
