"""Settings on the command line over those of a file, and arms that a sweep means."""

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


def arms(compare: str, algorithm: str = "{name: wind, beta: 0.5}") -> dict[str, RunConfig]:
    config = RunConfig.model_validate(parse(f"demo: {{}}\nalgorithm: {algorithm}\ncompare: {compare}"))
    assert config.compare is not None
    assert RunConfig.model_validate(config.model_dump()).model_dump() == config.model_dump()
    return {name: config.arm(name) for name in config.compare.arms}


def test_a_sweep_is_an_arm_for_each_choice_of_values() -> None:
    found = arms("{sweep: {training.learning_rate: [1e-4, 1e-3], algorithm.eta: [10, 1000]}}")
    assert {name: (arm.training.learning_rate, arm.algorithm.model_dump()["eta"]) for name, arm in found.items()} == {
        "learning_rate-0.0001_eta-10": (1e-4, 10),
        "learning_rate-0.0001_eta-1000": (1e-4, 1000),
        "learning_rate-0.001_eta-10": (1e-3, 10),
        "learning_rate-0.001_eta-1000": (1e-3, 1000),
    }
    assert {arm.algorithm.model_dump()["beta"] for arm in found.values()} == {0.5}  # the run's own


def test_a_sweep_stands_beside_arms_of_their_own() -> None:
    found = arms("{sweep: {generation.responses: [4, 8]}, arms: {dpo: {algorithm: {name: dpo}}}}")
    assert {name: (arm.algorithm.name, arm.generation.responses) for name, arm in found.items()} == {
        "responses-4": ("wind", 4),
        "responses-8": ("wind", 8),
        "dpo": ("dpo", 8),
    }


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("[]", "compare.sweep: write a list of values for each key"),
        ("{training.epochs: 3}", "compare.sweep: write a list of values for each key"),
        ("{training.epochs: []}", "compare.sweep: write a list of values for each key"),
        ("{training.epochs: [1, 1]}", "compare.sweep: two arms would have one name."),
        ("{training.epochs: [1, 0]}", "compare.arms.epochs-0.training.epochs: 0 cannot be used."),
        ("{seed: [1, 2]}", "compare.arms.seed-1.seed: cannot differ between arms"),
        ("{}", "compare.sweep: write a list of values for each key"),
        ("{training: [1], training.epochs: [2]}", "compare.sweep: training has training.epochs in it"),
        (
            "{training.lora.alpha: [8, 16], training.lora: [{rank: 4}]}",
            "compare.sweep: training.lora has training",
        ),
        ("{algorithm: [{name: dpo}], algorithm.beta: [0.1, 0.2]}", "compare.sweep: algorithm has algorithm.beta in it"),
        (f"{{training.epochs: {list(range(1, 502))}}}", "compare.sweep: means 501 arms. Leave 500 or fewer."),
    ],
)
def test_a_bad_sweep_is_refused(sweep: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arms(f"{{sweep: {sweep}}}")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[a]", "compare.arms: ['a'] cannot be used."),
        ("[]", "compare.arms: [] cannot be used."),
        ("text", "compare.arms: 'text' cannot be used."),
        ("{epochs-1: {}}", "compare.sweep: two arms would have one name."),
    ],
)
def test_bad_arms_beside_a_sweep_are_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        arms(f"{{sweep: {{training.epochs: [1, 2]}}, arms: {written}}}")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", ["1e5", "7e12345", "0o17", "12e45", "a\x85x", "\u2028", "null", "yes", "", "é"])
def test_quoted_text_stays_text(text: str) -> None:
    """PyYAML writes YAML 1.1, in which 1e5 needs no quotes; configs are read by 1.2."""
    values = {"policy": {"revision": text}, "demo": {text or "empty": 1}}
    given = json.dumps(values)
    assert load_yaml(given) == values
    assert load_yaml(with_overrides(given, [])) == values
