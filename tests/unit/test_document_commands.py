"""The commands in the documents: each can be typed as it stands there.

The flows themselves are run by tests/flows; here their command lines are parsed and no more.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import yaml

from components import cli
from components.cli.overrides import split, with_overrides
from components.run_config import parse
from support.pages import MINE, ROOT, commands, files

pytestmark = pytest.mark.thorough

USERS = [path for path in files() if path.parent.name != "infra" and path.parent.parent.name != "infra"]
OURS = {"wind", "python", "make", "pip", "infra/s3/server"}
OTHERS = {"vllm", "curl", "tail", "export", "hf", "jupyter"}  # what users have installed, and their shell


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
        case ["wind", ("run" | "create") as verb, "--config", str(file), *rest]:
            return ["flows/wind_flow.py", "--config", "config", file, *cli.VERBS[verb], *split(rest)[1]]
        case ["wind", ("run" | "create") as verb, *rest]:
            return ["flows/wind_flow.py", *cli.VERBS[verb], *split(rest)[1]]
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


RUNS = {
    text: split(words[2:])[0] for text, words in TYPED.items() if words[:2] in (["wind", "run"], ["wind", "create"])
}


@pytest.mark.parametrize("text", [text for text, settings in RUNS.items() if settings])
def test_settings_on_the_command_line_are_known(text):
    assert parse(with_overrides(yaml.safe_dump(MINE), RUNS[text]))


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
        if module.split(".")[0] in {"vllm", "pytest", "nltk"}:
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
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env, timeout=600, check=False)
    assert "Usage: " in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
