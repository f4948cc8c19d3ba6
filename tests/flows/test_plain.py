"""What Metaflow writes to a terminal: no colours where nobody wants them, and no text that controls it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import command_line
from components.config.errors import UserError
from support.flows.signals import HEARING
from support.terminal import Terminal

ROOT = Path(__file__).parents[2]
FLOW = ROOT / "flows" / "wind_flow.py"
KEY = '"bad\\e[2J\\e]0;mine\\a": 1\n'  # as YAML writes control codes


def shown(tmp_path: Path, env: dict[str, str], *words: str, **changed: str) -> tuple[int, str]:
    """The status and the output of the flow in a terminal."""
    path = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    own = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = ["env", *(f"{name}={value}" for name, value in changed.items()), *HEARING, sys.executable, str(FLOW)]
    terminal = Terminal([*command, *words], cwd=tmp_path, env={**own, **env, "PYTHONPATH": path})
    return terminal.wait(250), terminal.text


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("words", ["--config config bad.yaml show", "--nonsense"])
def test_colours_can_be_switched_off(tmp_path: Path, flow_env: dict[str, str], changed: dict, words: str) -> None:
    """In errors of the config, which are red and bold else, and in those of the command line."""
    (tmp_path / "bad.yaml").write_text(KEY)
    status, text = shown(tmp_path, flow_env, *words.split(), **changed)
    assert status != 0
    assert "\x1b" not in text
    assert "unknown key" in text or "no such option" in text


@pytest.mark.slow
def test_control_codes_in_keys(tmp_path: Path, flow_env: dict[str, str]) -> None:
    (tmp_path / "bad.yaml").write_text(KEY)
    status, text = shown(tmp_path, flow_env, "--config", "config", "bad.yaml", "show")
    assert status == 1
    assert "bad\\x1b[2J\\x1b]0;mine\\x07: unknown key." in text
    assert "\x1b[2J" not in text
    assert not {"\x1b]", "\x07"} & {*text.split()}
    assert "\x1b[1m" in text  # what Metaflow adds itself


@pytest.mark.parametrize(
    "words", [["--no\x1b[2J"], ["run", "--tag", "a\x1b]0;mine\x07"], ["sho\x1b[2Jw"], ["--no\u202e", "show"], ["a\rb"]]
)
def test_control_codes_in_words(words: list[str]) -> None:
    with pytest.raises(UserError, match="holds control characters, written here as escapes") as raised:
        command_line.check(words)
    assert str(raised.value).isprintable()


def test_words_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A config's text may hold marks of direction, and a tag joined signs or several lines."""
    monkeypatch.delenv(command_line.VARIABLE, raising=False)
    command_line.check(["--config-value", "config", "a: '\u202e'", "run", "--tag", "\U0001f469\u200d\U0001f4bb\n\tx"])
