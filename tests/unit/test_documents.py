"""The documents: every command in them can be typed, every config read, every snippet compiled, every link followed.

The flows themselves are run by tests/flows; here their command lines are parsed and no more.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import cli
from components.config.strict_yaml import load_yaml
from components.run_config import parse
from pages import ROOT, anchors, blocks, commands, files, links, named, prose
from test_house import FLOORS

FILES = files()
USERS = [path for path in FILES if path.parent.name != "infra" and path.parent.parent.name != "infra"]
LONGEST = 160
OURS = {"wind", "python", "make", "pip", "infra/s3/server"}
OTHERS = {"vllm", "export"}  # what users have installed, and their shell
FILE = re.compile(r"(?<![\w/.<-])((?:components|flows|tests|docs|examples|infra)/[\w./*-]+)")
MINE = {
    "policy": {"model": "organisation/model"},
    "prompts": {"train": "prompts.jsonl"},
    "judge": {"name": "verifier", "function": "my_judge:score"},
}


def typed() -> dict[str, list[str]]:
    """Each command of the documents for users once, as it is written; no names of commands and no ellipses."""
    found = {" ".join(words): words for path in USERS for words in commands(path)}
    return {text: words for text, words in found.items() if "…" not in words}


def as_flow(words: list[str]) -> list[str] | None:
    """The flow that a command starts, with its arguments; None if it starts none."""
    match words:
        case ["python", str(script), *rest] if script.startswith("flows/"):
            return [script, *rest]
        case ["wind", "flow", str(name), *rest]:
            return [f"flows/{name}_flow.py", *rest]
        case ["wind", "run", "--config", str(file), *rest]:
            return ["flows/wind_flow.py", "--config", "config", file, "run", *rest]
        case ["wind", "run", *rest]:
            return ["flows/wind_flow.py", "run", *rest]
    return None


TYPED = typed()
FLOWS = {text: flow for text, words in TYPED.items() if (flow := as_flow(words))}
# Whatever the config: each is another two seconds.
ALIKE = {" ".join(re.sub(r"\S+\.yaml", "FILE", word) for word in flow): text for text, flow in FLOWS.items()}


def test_the_commands_are_found():
    assert {"make run", "python flows/wind_flow.py run", "wind export WindFlow/RUN aligned"} <= TYPED.keys()
    assert {words[0] for words in TYPED.values()} <= OURS | OTHERS


@pytest.mark.parametrize("text", [text for text, words in TYPED.items() if words[0] == "make"])
def test_make_has_the_target(text):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for word in TYPED[text][1:]:
        name, equals, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if equals else rf"^{name}:", makefile, re.MULTILINE), name


@pytest.mark.parametrize("text", [text for text, words in TYPED.items() if words[0] == "pip"])
def test_pip_finds_the_requirements(text):
    words = TYPED[text]
    assert words[1] == "install"
    for option, file in pairwise(words):
        assert option != "-r" or (ROOT / file).is_file(), file


HERE = {
    "METAFLOW_DEFAULT_METADATA": "local",
    "METAFLOW_DATASTORE_SYSROOT_S3": "s3://bucket/metaflow",
    "PYTHONPATH": str(ROOT),
    "USERNAME": "reader",
}


class Parsed(Exception):  # noqa: N818 - not an error
    """Ends a command once its words are understood."""


@pytest.mark.parametrize("text", [text for text, words in TYPED.items() if words[0] == "wind" and text not in FLOWS])
def test_wind_understands(text, monkeypatch):
    original = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser, *given: Any) -> argparse.Namespace:
        original(self, *given)
        raise Parsed

    _, name, *rest = TYPED[text]
    if not rest and name != "schema":  # a command's name in a sentence
        assert name in cli.COMMANDS
        return
    module = importlib.import_module(cli.COMMANDS[name][0])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(Parsed):
        module.main(rest, prog=f"wind {name}")


def test_wind_tells_of_all_commands(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    named_in_readme = {words[1] for words in commands(ROOT / "README.md") if words[0] == "wind"}
    assert named_in_readme == {*cli.COMMANDS, *cli.FLOWS}
    assert all(f"\n  {name} " in shown for name in named_in_readme)


PYTHON = [text for text, words in TYPED.items() if words[0] == "python" and text not in FLOWS]


@pytest.mark.parametrize("text", PYTHON)
def test_python_finds_the_file(text):
    """…and the file knows the options."""
    _, first, *rest = TYPED[text]
    if first == "-m":
        module, *rest = rest
        if module.split(".")[0] in {"vllm", "pytest"}:
            assert all((ROOT / word).exists() for word in rest if word.startswith("tests/"))
            return
        path = ROOT / module.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
    else:
        file = ROOT / first if (ROOT / first).is_file() else next(ROOT.glob(f"examples/*/{first}"))
    source = file.read_text("utf-8")
    assert [word for word in rest if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working directory with what the documents' user has, and the project's folders beside it."""
    home = tmp_path_factory.mktemp("reader")
    for folder in ("flows", "examples"):
        (home / folder).symlink_to(ROOT / folder)
    (home / "mine.yaml").write_text(yaml.safe_dump({**MINE, "compare": None}), "utf-8")
    compared = {**MINE, "compare": {"arms": {"wind": {}}}}
    (home / "compared.yaml").write_text(yaml.safe_dump(compared), "utf-8")
    (home / "prompts.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2"}\n', "utf-8")
    (home / "my_judge.py").write_text("def score(response, prompt):\n    return 0.0\n", "utf-8")
    return home


@pytest.mark.parametrize("text", FLOWS)
def test_a_flow_and_its_config_are_there(text):
    script, *words = FLOWS[text]
    assert (ROOT / script).is_file()
    configs = [file for option, file in pairwise(words) if option == "config" and file not in {"mine.yaml", "FILE"}]
    assert [file for file in configs if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("text", ALIKE.values())
def test_a_flow_understands(text, home):
    """Metaflow's own command line parses all words before it shows its help."""
    script, *words = FLOWS[text]
    if "resume" in words:  # which looks for the run even where only its help is wanted
        from metaflow.cli_components.run_cmds import resume

        known = {name for option in resume.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= known
        return
    own = "compared.yaml" if "compare" in script else "mine.yaml"
    words = [own if word in {"mine.yaml", "FILE"} else word for word in words]
    kind = "s3" if {"s3", "argo-workflows"} & {*words} else "local"
    env = {**os.environ, **HERE, "METAFLOW_DEFAULT_DATASTORE": kind, "METAFLOW_HOME": str(home)}
    command = [sys.executable, script, "--no-pylint", *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env, timeout=120, check=False)
    assert "Usage: " in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


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


def example(name: str) -> list[str]:
    """The file that CONTRIBUTING.md has its reader write."""
    return [name] if name == "components/algorithms/best_worst.py" else []


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
