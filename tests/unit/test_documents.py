"""The documents: every config can be read, every snippet compiled, every link followed; what they must tell is there.

Their commands are in test_document_commands.py.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_house import FLOORS

from components.config.strict_yaml import load_yaml
from components.run_config import parse
from support.pages import MINE, ROOT, anchors, blocks, commands, files, links, named, prose

FILES = files()
LONGEST = 160
FILE = re.compile(r"(?<![\w/.<-])((?:components|flows|tests|docs|examples|infra)/[\w./*-]+)")


def merged(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """A part of a config, such as a document shows, put into a whole one."""
    both = {key: merged(base[key], value) for key, value in extra.items() if isinstance(value, dict) and key in base}
    return {**base, **extra, **both}


YAML = [(path, number) for path in FILES for number in range(len(blocks(path, "yaml")))]


@pytest.mark.parametrize(("path", "number"), YAML, ids=lambda given: named(given) if isinstance(given, Path) else given)
def test_a_config_can_be_run(path, number):
    text = blocks(path, "yaml")[number]
    values = load_yaml(text) if any(not line.startswith("#") for line in text.splitlines()) else {}
    base = MINE if "name" not in values.get("judge", {}) else {**MINE, "judge": {}}
    parse(json.dumps(merged(base, values)))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_code_compiles_and_prompts_are_json(path):
    for code in blocks(path, "python"):
        ast.parse(code)
    for line in "".join(blocks(path, "json")).splitlines():
        assert "prompt" in json.loads(line)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_code_says_its_language(path):
    opened = re.findall(r"^```(.*)$", path.read_text("utf-8"), re.MULTILINE)[::2]
    assert set(opened) <= {"bash", "console", "json", "python", "text", "yaml"}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_links_lead_somewhere(path):
    lost = [
        f"{file.name}#{anchor}"
        for file, anchor in links(path)
        if not file.exists() or (anchor and anchor not in anchors(file))
    ]
    assert lost == []


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "CHANGELOG.md"], ids=named)
def test_files_that_are_named_exist(path):
    named_files = {name.rstrip(".") for name in FILE.findall(path.read_text("utf-8"))}
    there = ROOT.glob if path.name != "CONTRIBUTING.md" else lambda name: [*ROOT.glob(name), *example(name)]
    assert [name for name in named_files if not list(there(name))] == []


EXAMPLES = {
    f"components/{name}.py"
    for name in ("algorithms/best_worst", "judges/shorter", "generation/one_by_one", "trackers/csv_file")
}


def example(name: str) -> list[str]:
    """The file that CONTRIBUTING.md has its reader write."""
    return [name] if name in EXAMPLES else []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_lines_are_short(path):
    lines = path.read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > LONGEST] == []


def test_the_readme_is_short_and_leads_to_every_document():
    readme = ROOT / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= 200
    assert {path for path in FILES if path.parent.name == "docs"} <= {file for file, _ in links(readme)}
    sections = {anchor for anchor in anchors(readme) if anchor != "wind-on-metaflow"}
    assert sections <= {anchor for file, anchor in links(readme) if file == readme}  # the table of contents


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_rooms_are_told_from_the_ground_up(name):
    (table,) = re.findall(r"^\| room \|.*\n((?:\|.*\n)+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    told = [room for row in table.splitlines() for room in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert tuple(told) == FLOORS


def test_every_preset_has_its_command_and_what_to_expect():
    page = prose(ROOT / "docs" / "presets.md")
    shown = " ".join(" ".join(words) for words in commands(ROOT / "docs" / "presets.md"))
    defaults = {"demo.yaml", "compare.yaml", "laboratory.yaml"}  # what a flow runs without `--config`
    for path in sorted((ROOT / "flows" / "configs").rglob("*.yaml")):
        assert path.name in defaults or path.relative_to(ROOT).as_posix() in shown
        assert path.name in page or path.stem in page


def test_the_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # which the format requires
    paper = cited["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        *("Yang", "Mei", "Dai", "Wen", "Cen", "Schuurmans", "Chi", "Dai"),
    ]
    assert paper["year"] == 2025
