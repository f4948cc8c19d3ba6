"""What Metaflow writes to a terminal: no colours where nobody wants them, and no text that controls it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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
@pytest.mark.parametrize("changed", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_colours_can_be_switched_off(tmp_path: Path, flow_env: dict[str, str], changed: dict[str, str]) -> None:
    """In what is shown, in errors of the config, and in those of the command line."""
    (tmp_path / "bad.yaml").write_text(KEY)
    for words in (["show"], ["--config", "config", "bad.yaml", "show"], ["--nonsense"]):
        assert "\x1b" in shown(tmp_path, flow_env, *words)[1] or words == ["--nonsense"]
        assert "\x1b" not in shown(tmp_path, flow_env, *words, **changed)[1]


@pytest.mark.slow
def test_control_codes_in_keys_and_words(tmp_path: Path, flow_env: dict[str, str]) -> None:
    (tmp_path / "bad.yaml").write_text(KEY)
    status, text = shown(tmp_path, flow_env, "--config", "config", "bad.yaml", "show")
    assert status == 1
    assert "bad\\x1b[2J\\x1b]0;mine\\x07: unknown key." in text
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\x07" not in text
    for words in (["--no\x1b[2J"], ["run", "--tag", "a\x1b]0;mine\x07"], ["sho\x1b[2Jw"], ["--no\u202e", "show"]):
        status, text = shown(tmp_path, flow_env, *words)
        assert status == 1
        assert "holds control characters, written here as escapes. Leave them out." in text
        assert text.replace("\r\n", "").isprintable()
