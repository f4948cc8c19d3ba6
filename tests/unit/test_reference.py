"""docs/configuration.md: made from the schema, by now."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from components.bandit.config import LabConfig
from components.bandit.methods import METHODS
from components.bandit.settings import SETTINGS
from components.cli import main, reference
from components.config import registry
from components.config.compare import Arm
from components.config.marks import sections
from components.config.schema import Section
from components.run_config.fields import AlgorithmField, EngineField, JudgeField, RunFields, TrackerField

pytestmark = pytest.mark.thorough

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_what_the_schema_says_now(capsys):
    main(["schema", "--markdown"])
    assert capsys.readouterr().out == PAGE.read_text("utf-8"), "wind schema --markdown > docs/configuration.md"


@pytest.mark.parametrize(
    "line",
    [
        "| `learning_rate` | number > 0 | `1e-6` | at its peak … |",
        "| `clip` | number > 0, < 1 | `0.2` | see below |",
        "| `engine` | section with a `name` | `{name: transformers}` | "
        "what draws them: {name: transformers} or {name: vllm}, with settings of its own |",
        "| `lora` | section | absent | train an adapter; absent: all weights; [below](#traininglora) |",
        "### training.lora",
        "### judge: verifier",
        "### trackers: wandb",
        "| `trackers` | list of sections with a `name` | `[]` | "
        "what is told each iteration's figures, beside the JSONL file that every run writes |",
        "| `function` | text | required | 'module:function' or 'path/to/file.py:function' |",
    ],
)
def test_lines_of_the_page(line):
    assert line in PAGE.read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 10000}, "integer ≥ 0, ≤ 10,000"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, "number > 0, < 0.5"),
        ({"type": "number", "exclusiveMinimum": 0, "minimum": 0.5}, "number ≥ 0.5"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        ({"anyOf": [{"type": "number"}, {"const": "lose"}]}, "number or `lose`"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "list of `a`, `b`"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "mapping to text"),
        ({"type": "object", "additionalProperties": True}, "mapping"),
        ({"type": "boolean"}, "`true` or `false`"),
    ],
)
def test_kinds_of_values(schema, said):
    assert reference.kind(schema) == said


class Inner(Section):
    """Inside."""

    depth: int = Field(1, description="how deep")


class Outer(Section):
    """Outside."""

    text: str = Field("a|b", description="with a <tag> and a | in it")
    inner: Inner | None = Field(None, description="a part")
    many: list[int] = Field(list(range(40)), description="numbers")
    long: float = Field(description=f"first; {'word ' * 40}")


def test_a_table():
    long = f"first; {'word ' * 40}".strip()
    lines = reference.table(Outer, "outer.").splitlines()
    assert lines[2:7] == [
        r"| `text` | text | `a\|b` | with a \<tag> and a \| in it |",
        "| `inner` | section | absent | a part; [below](#outerinner) |",
        "| `many` | list of integer | its own | numbers |",
        "| `long` | number | required | first … |",
        "",
    ]
    assert " ".join(" ".join(lines[7:]).split()) == f"* `long`: {long}"
    assert max(map(len, lines)) <= 120


def every_section() -> list[type[BaseModel]]:
    """All sections and plug-ins that a config may hold."""
    found: list[type[BaseModel]] = [RunFields, LabConfig, Arm, *METHODS.values(), *SETTINGS.values()]
    for annotated in (AlgorithmField, EngineField, JudgeField, TrackerField):
        (kind,) = (one for one in annotated.__metadata__ if isinstance(one, registry.PlugIn))
        found += [registry.find(kind.package, name, kind.base) for name in registry.names(kind.package)]
    for section in found:  # grows meanwhile
        inside = [one for field in section.model_fields.values() for one in sections(field.annotation)]
        found += [one for one in inside if one not in found and not hasattr(one, "name")]
    return found


@pytest.mark.parametrize("section", every_section(), ids=lambda section: section.__name__)
def test_every_setting_is_described(section):
    bare = [
        name
        for name, field in section.model_fields.items()
        if not field.description and name != "name" and not list(sections(field.annotation))
    ]
    assert bare == []
    assert section.__doc__
