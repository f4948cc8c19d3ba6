"""Paths that users name: refused with their key where they cannot be looked up, wherever they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from components import export
from components.config.errors import ConfigError, JudgeError, PolicyError, PromptError, UserError
from components.config.paths import user_path
from components.config.sections import EvaluationConfig, PolicyConfig
from components.evaluation import benchmarks
from components.judges.verifier import Verifier
from components.policy.sources import locate
from components.prompts import sources
from components.prompts.config import PromptsConfig
from components.trackers import TrackerError, place

UNUSABLE = ["~nosuchuser/x", "~nosuchuser/*.jsonl", "x" * 300, "loop", "loop/x", "a\0b", "\ud800"]


@pytest.fixture(autouse=True)
def loop(tmp_path, monkeypatch):
    """A link to itself in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")


@pytest.mark.parametrize("text", UNUSABLE)
@pytest.mark.parametrize(
    ("key", "error", "use"),
    [
        ("key", ConfigError, lambda text: user_path(text, "key", ConfigError)),
        ("prompts.train", PromptError, lambda text: sources.configured(PromptsConfig(train=["a.jsonl", text]))),
        ("prompts.evaluation", PromptError, lambda text: sources.configured(PromptsConfig(evaluation=text))),
        ("prompts", PromptError, lambda text: sources.expanded([text])),
        ("judge.files", JudgeError, lambda text: Verifier(function="math:pow", files=[text]).check()),
        ("judge.function", JudgeError, lambda text: Verifier(function=f"{text}/f.py:f").check()),
        ("policy.model", PolicyError, lambda text: locate(PolicyConfig(model=text))),
        ("folder", TrackerError, lambda text: place(text, None, "inside")),
        (
            "evaluation.tasks_path",
            benchmarks.BenchmarkError,
            lambda text: benchmarks.check(EvaluationConfig(tasks=["a"], tasks_path=text)),
        ),
    ],
)
def test_paths_that_cannot_be_looked_up(key, error, use, text, monkeypatch):
    monkeypatch.setattr(benchmarks.importlib.util, "find_spec", lambda name: name)  # as if lm-eval were installed
    with pytest.raises(error) as raised:
        use(text)
    shown = text if text.isprintable() else ascii(text)[:-1]
    assert str(raised.value).startswith(f"{key}: {shown[:70]}")
    assert str(raised.value).endswith("). Check the path.")
    assert " cannot be looked up (" in str(raised.value)


def test_paths_that_can_be(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of")
    assert user_path("~/x", "key", UserError) == Path("/home/of/x")
    assert user_path("not/there", "key", UserError) == Path("not/there")
    Path("file").write_text("")
    assert user_path("file/below", "key", UserError) == Path("file/below")  # a file has nothing below it


@pytest.mark.parametrize("text", ["~nosuchuser/x", "x" * 300, "loop"])
def test_arguments_of_commands(text, capsys):
    with pytest.raises(SystemExit):
        export.main(["WindFlow/1", text])
    assert re.search(rf"error: argument DIR: {text[:70]}.* cannot be looked up \(.*\)\. Check", capsys.readouterr().err)
