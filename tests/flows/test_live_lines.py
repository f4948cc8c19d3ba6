"""The lines of a run above its picture: what tasks say controls no terminal and is not hidden; colours can go."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

import live_terminal
from components.runtime.reports import Reader
from components.runtime.screen import Screen


@pytest.fixture
def logged(tmp_path: Path):
    """`logged(body, **more)`: what a line becomes on the screen."""
    kept = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)

    def show(body: str, **more: object) -> str:
        stream = io.StringIO()
        terminal = live_terminal._Terminal("WindFlow", Reader(tmp_path / "reports"), kept, Screen(stream))
        terminal.logged(body, head="[1/score_1/3 (pid 7)] ", **more)
        return stream.getvalue()

    yield show
    os.close(kept)


def test_control_codes_of_a_task_are_shown(logged) -> None:
    assert logged("\x1b[2J\x1b]0;mine\x07 bad\u202e\rover") == "\\x1b[2J\\x1b]0;mine\\x07 bad\\u202e\\rover\n"


def test_errors_are_red_unless_nobody_wants_colours(logged, monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert logged("it \x1b[0mbroke", bad=True) == "\x1b[31mit \\x1b[0mbroke\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "")
    assert logged("it broke", bad=True).startswith("\x1b[31m")
    monkeypatch.setenv("NO_COLOR", "0")
    assert logged("it broke", bad=True) == "it broke\n"


MANY = [
    "Task is starting.",
    "Task finished successfully.",
    "Done! See the card",
    "Foreach yields 3 child steps.",
    "a/b cloned!",
]


@pytest.mark.parametrize("body", [*MANY, "Task is starting (retry).", "Workflow starting (run-id 1):", "Cloning a/b"])
def test_only_metaflows_own_lines_are_hidden(logged, body) -> None:
    assert logged(body) == f"{body}\n"
    assert logged(body, bad=True).strip("\x1b[310m\n") == body
    assert logged(body, system_msg=True) == ""


@pytest.mark.parametrize("body", ["train: 50%|#####     | 5/10 [00:01<00:01, 5.00it/s]"])
def test_what_looks_like_a_bar_is_shown_when_metaflow_says_it(logged, body) -> None:
    assert logged(body) == ""
    assert logged(body, system_msg=True) != ""
