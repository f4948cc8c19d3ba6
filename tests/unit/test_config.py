"""The config: what parses, what is filled in, and in which words the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from components.algorithms.wind import Wind
from components.generation.transformers import TransformersEngine
from components.run_config import RunConfig, parse
from support.configs import MINIMAL, refusal, with_settings

CONFIGS = Path(__file__).parents[2] / "flows" / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
OF_ALL = {"cut_thinking": None, "truncated_penalty": 0.0}  # settings of every judge


def test_the_presets_that_users_start_from_exist():
    assert {"demo.yaml", "smoke.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_preset_parses(path):
    text = path.read_text(encoding="utf-8")
    assert parse(text).keys() == RunConfig.model_fields.keys()


def assert_defaults(filled: dict[str, Any], section: type[BaseModel], given: dict[str, Any]) -> None:
    assert filled.keys() == section.model_fields.keys()
    for key, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            assert_defaults(filled[key], type(default), given.get(key, {}))
        elif key in given:
            assert filled[key] == given[key]
        elif not isinstance(default, dict):  # plug-ins have schemas of their own
            assert filled[key] == default


VERIFIER = {"temperature": None, "workers": 1, "batch_size": None, "timeout": None, "files": [], **OF_ALL}


def test_every_default_is_filled_in():
    filled = parse(MINIMAL)
    judge = {"name": "verifier", "function": "package.module:score", **VERIFIER}
    assert_defaults(filled, RunConfig, {**yaml.safe_load(MINIMAL), "judge": judge})
    assert_defaults(filled["algorithm"], Wind, {})
    assert_defaults(filled["generation"]["engine"], TransformersEngine, {})
    assert filled["algorithm"]["name"] == "wind"
    assert filled["generation"]["engine"]["name"] == "transformers"


def test_what_is_given_replaces_the_default():
    filled = parse(with_settings("{seed: 7, training: {epochs: 2}, algorithm: {name: wind, eta: 3}}"))
    assert (filled["seed"], filled["training"]["epochs"], filled["algorithm"]["eta"]) == (7, 2, 3.0)
    assert filled["algorithm"]["beta"] == Wind().beta


def test_the_demo_brings_its_judge():
    filled = parse("demo: {}")
    assert filled["judge"] == {"name": "verifier", "function": "components.demo:score", **VERIFIER}
    assert parse("demo: {}\njudge: {name: verifier, function: 'a:b'}")["judge"]["function"] == "a:b"


@pytest.mark.parametrize("text", [MINIMAL, "demo: {}", *(path.read_text(encoding="utf-8") for path in SHIPPED)])
def test_a_filled_config_is_a_fixed_point(text):
    filled = parse(text)
    assert parse(yaml.safe_dump(filled)) == filled


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5e-4", 0.0005),
        ("5E-4", 0.0005),
        ("1e3", 1000.0),
        ("+2e+1", 20.0),
        ("1.e-3", 0.001),
        ("0.25", 0.25),
        ("2", 2.0),
    ],
)
def test_numbers_are_read_as_people_write_them(written, value):
    text = MINIMAL + f"training: {{learning_rate: {written}}}"
    assert parse(text)["training"]["learning_rate"] == value


@pytest.mark.parametrize("written", ["5e-4x", "e5", "'5e-4'", "1e", "2025-01-31"])
def test_text_is_not_read_as_a_number(written):
    assert "Input should be a valid number." in refusal(MINIMAL + f"training: {{learning_rate: {written}}}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{}", 32),
        ("{prompts: {per_iteration: 16}}", 16),
        ("{training: {batch_size: 8}}", 8),
        ("{prompts: {per_iteration: 16}, training: {batch_size: 64}}", 16),
        ("{prompts: {per_iteration: 4096}, training: {batch_size: 64}}", 32),
        ("{prompts: {per_iteration: 16}, training: {batch_size: 16, micro_batch_size: 4}}", 4),
    ],
)
def test_a_micro_batch_that_nobody_chose_fits(settings, expected):
    values = parse(with_settings(settings))
    assert values["training"]["micro_batch_size"] == expected
    assert RunConfig.model_validate(values).model_dump() == values


@pytest.mark.parametrize(
    ("training", "arm", "expected"),
    [
        ("{batch_size: 16}", "{batch_size: 8}", 8),
        ("{batch_size: 16}", "{batch_size: 64}", 16),
        ("{}", "{batch_size: 64, micro_batch_size: 64}", 64),
        ("{batch_size: 16, micro_batch_size: 4}", "{batch_size: 8}", 4),
    ],
)
def test_so_it_does_in_an_arm(training, arm, expected):
    text = with_settings(f"{{training: {training}, compare: {{arms: {{a: {{training: {arm}}}}}}}}}")
    assert RunConfig.model_validate(parse(text)).arm("a").training.micro_batch_size == expected


def test_one_that_somebody_chose_for_larger_batches_stays_an_error_in_an_arm():
    settings = "{training: {batch_size: 16, micro_batch_size: 12}, compare: {arms: {a: {training: {batch_size: 8}}}}}"
    assert refusal(with_settings(settings)).startswith("compare.arms.a.training.micro_batch_size: 12 exceeds the 8")


def test_merge_keys_of_yaml_are_not_duplicates():
    text = MINIMAL + "resources:\n  train: &large {cpu: 8, gpu: 1}\n  score: {<<: *large, cpu: 4}"
    resources = parse(text)["resources"]
    assert (resources["train"]["cpu"], resources["score"]["cpu"], resources["score"]["gpu"]) == (8, 4, 1)


@pytest.mark.parametrize(("kind", "gpus"), [("start", 4), ("generate", 4), ("score", 1), ("train", 3), ("evaluate", 5)])
def test_gpus_of_a_task(kind, gpus):
    """As many as what runs there spreads over: the engine's four, training's three, and what the config asks for."""
    settings = (
        "{generation: {engine: {name: vllm, tensor_parallel: 4}}, training: {processes: 3}, "
        "resources: {evaluate: {gpu: 5}}}"
    )
    config = RunConfig.model_validate(parse(with_settings(settings)))
    assert config.runs_model(kind)
    assert config.num_gpus(kind) == gpus


@pytest.mark.parametrize(
    ("algorithm", "kinds"), [("wind", "plan gather end"), ("jbond", "plan gather end generate score")]
)
def test_steps_without_a_model(algorithm, kinds):
    config = RunConfig.model_validate(parse(with_settings(f"{{algorithm: {{name: {algorithm}}}}}")))
    every = set(RunConfig.model_fields["resources"].annotation.model_fields)
    assert {kind for kind in every if not config.runs_model(kind)} == set(kinds.split())


@pytest.mark.parametrize(
    ("training", "rate"),
    [("{}", 1e-6), ("{lora: {}}", 1e-5), ("{lora: {}, learning_rate: 2e-6}", 2e-6), ("{lora: null}", 1e-6)],
)
def test_the_learning_rate_nobody_chose_is_safe_for_what_is_trained(training, rate):
    """An adapter takes ten times the rate of all weights."""
    assert parse(MINIMAL + f"training: {training}")["training"]["learning_rate"] == rate
