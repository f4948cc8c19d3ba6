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
from components.run_config import checked
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


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("s3://bucket/x", "s3://bucket/x is an address, and a path on this machine is needed. Name one."),
        ("file:///tmp/x", "file:///tmp/x is an address"),
        ("", "is empty. Name a path."),
        ("  ", "is empty."),
    ],
)
@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("trackers.0.folder", lambda text: {"trackers": [{"name": "jsonl", "folder": text}]}),
        ("trackers.0.folder", lambda text: {"trackers": [{"name": "tensorboard", "folder": text}]}),
        ("trackers.0.folder", lambda text: {"trackers": [{"name": "wandb", "folder": text}]}),
        ("evaluation.tasks_path", lambda text: {"evaluation": {"tasks_path": text}}),
        ("judge.files.0", lambda text: {"judge": {"name": "verifier", "function": "a:b", "files": [text]}}),
        ("prompts.train", lambda text: {"demo": None, "prompts": {"train": text}}),
        ("prompts.evaluation", lambda text: {"prompts": {"evaluation": text}}),
    ],
)
def test_a_config_takes_paths_of_this_machine(key, settings, text, remedy):
    if (key, text) == ("prompts.train", ""):
        remedy = "is required."
    with pytest.raises(ConfigError) as raised:
        checked({"demo": {}, **settings(text)})
    assert f"{key}: {remedy}" in str(raised.value)


@pytest.mark.parametrize("text", ["s3://bucket/model", ""])
@pytest.mark.parametrize("use", [lambda text: locate(PolicyConfig(model=text)), lambda text: place(text, None, "x")])
def test_nothing_is_looked_up_for_an_address_or_nothing(use, text):
    with pytest.raises(UserError, match=r"^(policy\.model|folder): (is empty|s3://bucket/model is an address)"):
        use(text)


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
