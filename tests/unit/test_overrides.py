"""Settings on the command line over those of a file."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import cli
from components.cli.overrides import FLAGS, SEVERAL, split, with_overrides
from components.config.errors import ConfigError
from components.config.strict_yaml import load_yaml
from components.run_config import RunConfig, parse

FILE = "demo: {}\niterations: 5\ntraining: {epochs: 2, batch_size: 8}\nalgorithm: {name: wind, eta: 10}\n"


def changed(*given: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(with_overrides(FILE, given))
    return found


@pytest.mark.parametrize(
    ("given", "section", "expected"),
    [
        ("iterations=7", "iterations", 7),
        ("training.learning_rate=1e-5", "training", {"epochs": 2, "batch_size": 8, "learning_rate": 1e-5}),
        ("training.epochs=null", "training", {"epochs": None, "batch_size": 8}),
        ("training.lora.rank=4", "training", {"epochs": 2, "batch_size": 8, "lora": {"rank": 4}}),
        ("algorithm={name: dpo}", "algorithm", {"name": "dpo"}),
        ("algorithm.beta=0", "algorithm", {"name": "wind", "eta": 10, "beta": 0}),
        ("generation.stop=['a=b', c]", "generation", {"stop": ["a=b", "c"]}),
        ("policy.prompt_format='{prompt}: '", "policy", {"prompt_format": "{prompt}: "}),
        ("policy.revision='010'", "policy", {"revision": "010"}),
    ],
)
def test_a_setting_replaces_the_files(given: str, section: str, expected: object) -> None:
    found = changed(given)
    assert found.pop(section) == expected
    rest = yaml.safe_load(FILE)
    rest.pop(section, None)
    assert found == rest


def test_the_last_of_two_wins() -> None:
    assert changed("iterations=7", "iterations=9")["iterations"] == 9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("iterations", "iterations: is no setting. Write KEY=VALUE"),
        ("x" * 5000, "x" * 200 + "…: is no setting."),
        ("seed=" + "[" * 5000, "seed: '" + "[" * 199 + "… is no YAML value"),
        (".".join("a" * 3000) + "=1", "a." * 100 + "…: is nested in more than 50 levels."),
        ("=3", "=3: is no setting."),
        ("training.epochs.more=1", "training.epochs.more: training.epochs is 2 in the config and has no settings."),
        ("seed=[1", "seed: '[1' is no YAML value"),
        ("seed=1\nseed: 2", "seed: '1\\nseed: 2' is no YAML value"),
        ("seed=1\niterations: 2", "seed: '1\\niterations: 2' is no YAML value (another key follows in it)."),
    ],
)
def test_what_is_no_setting_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(FILE, [given])
    assert str(caught.value).startswith(message)


def test_values_of_options_are_left_to_them() -> None:
    words = shlex.split("seed=1 --tag team=nlp --max-workers 4 --x=y training.epochs=2")
    assert split(words) == (["seed=1", "training.epochs=2"], ["--tag", "team=nlp", "--max-workers", "4", "--x=y"])


def test_an_option_without_a_value_leaves_what_follows() -> None:
    words = shlex.split(
        "--only-json seed=1 --tag a=b --tag c --no-notify-on-error training.epochs=2 --max-workers -1 x=2"
    )
    options = ["--only-json", "--tag", "a=b", "--tag", "c", "--no-notify-on-error", "--max-workers", "-1"]
    assert split(words) == (["seed=1", "training.epochs=2", "x=2"], options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("foo", "foo: is neither a setting nor an option. Write settings as KEY=VALUE"),
        ("mine.yaml iterations=3", "mine.yaml: is neither a setting nor an option."),
        ("--only-json foo", "foo: is neither"),
        ("--max-workers 4 5", "5: is neither"),
        ("--tag=a b", "b: is neither"),
        ("=3", "=3: is neither"),
        ("-- foo", "--: is neither"),
        ("--max-workers 4 --max-workers=2", "--max-workers: is given twice, and only the last would count."),
        ("--conf mine.yaml", "--conf: is no option. Write --config FILE."),
    ],
)
def test_stray_words_and_options_are_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(shlex.split(words))
    assert str(caught.value).startswith(message)


# What Metaflow says itself of its options: names, and whether each takes a value and may be given again.
OPTIONS = """
import sys
sys.path.insert(0, sys.argv[1])
import wind_flow
from metaflow.parameters import flow_context
with flow_context(wind_flow.WindFlow._flow_cls):
    from metaflow.cli_components.run_cmds import run
    from metaflow.plugins.argo.argo_workflows_cli import create
for option in [*run.params, *create.params]:
    for name in [*option.opts, *option.secondary_opts]:
        print(name, option.is_flag, option.multiple)
"""


def test_options_are_those_of_metaflow() -> None:
    env = {**os.environ, "USERNAME": "tester"}
    command = [sys.executable, "-W", "ignore", "-c", OPTIONS, str(Path(cli.__file__).parents[2] / "flows")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, flag, _ in told if flag == "True"} == FLAGS
    assert {name for name, _, several in told if several == "True"} == SEVERAL


@pytest.mark.parametrize(
    ("config", "command", "flow", "verbs"),
    [
        ("demo: {}", "run", "wind_flow.py", ["run"]),
        ("demo: {}", "create", "wind_flow.py", ["argo-workflows", "create"]),
        ("demo: {}\ncompare: {seeds: [0], arms: {a: {}}}", "run", "compare_flow.py", ["run"]),
    ],
)
def test_the_command_starts_the_flow(config, command, flow, verbs, tmp_path, monkeypatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(cli.os, "execv", lambda _, words: started.extend(words))
    monkeypatch.setenv(cli.COMMAND, "")  # so that what the command sets ends with the test
    file = tmp_path / "my config.yaml"
    file.write_text(config)
    cli.main([command, "--config", str(file), "training.learning_rate=1e-4", "--max-workers", "3"])
    python, script, option, name, text, *rest = started
    assert (python, option, name, rest) == (sys.executable, "--config-value", "config", [*verbs, "--max-workers", "3"])
    assert Path(script).name == flow
    assert Path(script).is_file()
    assert RunConfig.model_validate(parse(text)).training.learning_rate == 1e-4
    typed = shlex.split(cli.os.environ[cli.COMMAND])
    assert typed == ["wind", command, "--config", str(file), "training.learning_rate=1e-4", "--max-workers", "3"]


def test_a_bad_setting_ends_before_anything_starts() -> None:
    command = [sys.executable, "-c", "from components.cli import main; main()", "run", "training.epochs=0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: training.epochs: 0 cannot be used. Input should be greater than 0.")


@pytest.mark.parametrize("text", ["1e5", "7e12345", "0o17", "12e45", "a\x85x", "\u2028", "null", "yes", "", "é"])
def test_quoted_text_stays_text(text: str) -> None:
    """PyYAML writes YAML 1.1, in which 1e5 needs no quotes; configs are read by 1.2."""
    values = {"policy": {"revision": text}, "demo": {text or "empty": 1}}
    given = json.dumps(values)
    assert load_yaml(given) == values
    assert load_yaml(with_overrides(given, [])) == values
