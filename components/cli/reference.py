"""Every setting as a Markdown page, from the schema itself: docs/configuration.md, by `wind schema --markdown`."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.bandit.config import LabConfig, SamplingConfig
from components.bandit.methods import METHODS
from components.bandit.settings import SETTINGS
from components.cli.intro import INTRO
from components.config import registry
from components.config.compare import Arm
from components.config.marks import sections
from components.config.registry import PlugIn
from components.run_config import RunConfig

WIDTH, PROSE = 160, 120  # characters of a table's line, beyond which a text stands below it; of other lines
LONG = 70  # characters of a default that a row has room for
UNREAD = {"compare": {"compare.arms.NAME": Arm}}  # sections that a config holds as they are written
Schema = Mapping[str, Any]


def page() -> str:
    """The whole page."""
    parts = [INTRO.rstrip(), "## The run", table(RunConfig)]
    for name, field in RunConfig.model_fields.items():
        parts += _chapter(name, field)
    parts += ["## The laboratory", "`flows/bandit_flow.py` has a config of its own.", table(LabConfig)]
    parts += _section("sampling", SamplingConfig)
    for key, known in (("methods", METHODS), ("settings", SETTINGS)):
        for name, section in known.items():
            parts += _section(f"{key}: {name}", section)
    return "\n\n".join(parts) + "\n"


def table(section: type[BaseModel], where: str = "") -> str:
    """The settings of a section, one a line; below them what has no room there.

    `where` is what stands before the names of sections inside, such as `training.`.
    """
    properties = section.model_json_schema()["properties"]
    rows, below = ["| key | type | default | description |", "|---|---|---|---|"], []
    for name, field in section.model_fields.items():
        if name == "name":  # of a plug-in; the heading says it
            continue
        row, text = _row(name, field, properties[name], where)
        rows.append(row)
        below += [f"* `{name}`: {text}"] if text else []
    if len(rows) == 2:
        return "No settings of its own."
    return "\n".join(rows) + ("\n\n" + "\n".join(map(_wrapped, below)) if below else "")


def kind(schema: Schema) -> str:
    """What values a JSON schema takes, in words, such as `number > 0`; not null, by which a setting is absent."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"] if one != {"type": "null"}))
    if "enum" in schema or "const" in schema:
        return _names(schema.get("enum") or [schema["const"]])
    match schema.get("type"):
        case "array":
            said = f"list of {kind(schema['items'])}"
        case "object":
            inside = schema.get("additionalProperties")
            said = f"mapping to {kind(inside)}" if isinstance(inside, Mapping) else "mapping"
        case "integer" | "number" as number:
            said = f"{number}{_bounds(schema)}"
        case "boolean":
            said = "`true` or `false`"
        case _:
            said = "text"
    return said


def _chapter(name: str, field: FieldInfo) -> Iterator[str]:
    """What there is to say of a setting of the run that is a plug-in or a section."""
    if plug_in := _plug_in(field):
        yield f"## {name}"
        yield from _plug_ins(name, plug_in, many=_many(field))
    elif section := _held(field):
        yield from _section(name, section, level=2)
        for key, inner in section.model_fields.items():
            if found := _plug_in(inner):
                yield from _plug_ins(key, found)
        for title, unread in UNREAD.get(name, {}).items():
            yield from _section(title, unread)


def _plug_ins(key: str, field: PlugIn, *, many: bool = False) -> Iterator[str]:
    """Each of a kind, such as all judges; `many` where a setting is a list of them."""
    known = registry.names(field.package)
    said = f"{key}: [{{name: …}}]` holds any" if many else f"{key}: {{name: …}}` is one"
    yield textwrap.fill(f"`{said} of {_names(known)}, each with settings of its own.", WIDTH, break_on_hyphens=False)
    for name in known:
        yield from _section(f"{key}: {name}", registry.find(field.package, name, field.base))


def _section(title: str, section: type[BaseModel], level: int = 3) -> Iterator[str]:
    """Heading, what it is, its table, and the sections inside."""
    yield f"{'#' * level} {title}"
    yield textwrap.fill(_escaped(" ".join((section.__doc__ or "").partition("\n\n")[0].split())), PROSE)
    inside = {name: found for name, field in section.model_fields.items() if (found := _held(field))}
    kinds = set(inside.values())
    if len(kinds) == 1 and len(inside) == len(section.model_fields) > 1:
        yield textwrap.fill(f"The same for each kind of step, such as `{title}.train`: {_names(list(inside))}.", PROSE)
        yield table(kinds.pop())
        return
    yield table(section, f"{title}.")
    for name, found in inside.items():
        yield from _section(f"{title}.{name}", found)


def _row(name: str, field: FieldInfo, schema: Schema, where: str) -> tuple[str, str]:
    """A row of the table, and its text if that does not fit into it."""
    cells = f"| `{name}` | {_kind(field, schema)} | {_default(field, schema)} | "
    text = _escaped(field.description or "")
    if _held(field):
        link = f"[below](#{_anchor(where + name)})"
        text = f"{text}; {link}" if text else link
    if len(cells) + len(text) + 2 <= WIDTH:
        return f"{cells}{text} |", ""
    first = f"{re.split('[;.] ', text)[0]} …"
    return f"{cells}{first if len(cells) + len(first) + 2 <= WIDTH else 'see below'} |", text


def _kind(field: FieldInfo, schema: Schema) -> str:
    if _plug_in(field):
        return "list of sections with a `name`" if _many(field) else "section with a `name`"
    return "section" if _held(field) else kind(schema)


def _bounds(schema: Schema) -> str:
    """` > 0, ≤ 1`, or nothing."""
    marks = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    if schema.get("minimum", -math.inf) > schema.get("exclusiveMinimum", math.inf):
        del marks["exclusiveMinimum"]  # which says less
    found = [f"{mark} {schema[key]:,.15g}" for key, mark in marks.items() if key in schema]
    return f" {', '.join(found)}" if found else ""


def _default(field: FieldInfo, schema: Schema) -> str:
    """A default as it would be written, or what stands for it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "absent"
    if isinstance(value, BaseModel):
        return f"`{{name: {getattr(value, 'name', '')}}}`" if _plug_in(field) else ""
    if value == schema.get("items", {}).get("enum"):
        return "all of them"
    text = _plain(value).replace("|", r"\|")
    return f"`{text}`" if len(text) <= LONG else "its own"


def _plain(value: Any) -> str:
    """A value as YAML has it, on one line."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return re.sub(r"e([+-])0", r"e\1", f"{value:.15g}")
        case dict():
            return "{" + ", ".join(f"{key}: {_plain(inside)}" for key, inside in value.items()) + "}"
        case list():
            return f"[{', '.join(map(_plain, value))}]"
        case _:
            return str(value)


def _wrapped(line: str) -> str:
    """A point of a list in several lines."""
    return textwrap.fill(line, PROSE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _escaped(text: str) -> str:
    """Text in which Markdown finds neither a cell's end nor HTML."""
    return re.sub(r"(\||<(?=[/A-Za-z]))", r"\\\1", text)


def _anchor(heading: str) -> str:
    """The name under which GitHub finds a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _plug_in(field: FieldInfo) -> PlugIn | None:
    """What a setting names, or each of its list does."""
    inside = [mark for kind in get_args(field.annotation) for mark in getattr(kind, "__metadata__", ())]
    return next((found for found in (*field.metadata, *inside) if isinstance(found, PlugIn)), None)


def _many(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list


def _held(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a setting is."""
    return None if _plug_in(field) else next(sections(field.annotation), None)
