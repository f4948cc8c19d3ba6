"""The config: what parses, what is filled in, and in which words the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from components.algorithms.wind import Wind
from components.config.errors import ConfigError
from components.generation.transformers import TransformersEngine
from components.run_config import RunConfig, parse

CONFIGS = Path(__file__).parents[2] / "flows" / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
OF_ALL = {"cut_thinking": None, "truncated_penalty": 0.0}  # settings of every judge
MINIMAL = """
policy: {model: path/to/model}
prompts: {train: prompts.jsonl}
judge: {name: verifier, function: "package.module:score"}
"""


def merged(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    nested = {k: merged(base[k], v) for k, v in extra.items() if isinstance(v, dict) and k in base}
    return {**base, **extra, **nested}


def with_settings(extra: str) -> str:
    """The minimal config with settings added or replaced."""
    return yaml.safe_dump(merged(yaml.safe_load(MINIMAL), yaml.safe_load(extra)))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


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
    ("extra", "key", "message"),
    [
        ("{trainig: {}}", "trainig", "unknown key. Did you mean 'training'?"),
        ("{rollouts: 3}", "rollouts", "unknown key. Known keys: seed, iterations, start_from, demo, "),
        ("{training: {learning_rat: 0.1}}", "training.learning_rat", "Did you mean 'learning_rate'?"),
        ("{resources: {train: {gpus: 1}}}", "resources.train.gpus", "Did you mean 'gpu'?"),
        ("{algorithm: {name: wind, betta: 1}}", "algorithm.betta", "Did you mean 'beta'?"),
        ("{judge: {functoin: 'a:b'}}", "judge.functoin", "Did you mean 'function'?"),
        (
            "{generation: {engine: {name: transformers, batch: 1}}}",
            "generation.engine.batch",
            "'batch_size'?",
        ),
        (
            "{generation: {responses: 1}}",
            "generation.responses",
            "1 is too few, a win rate needs a rival. Use 2",
        ),
        ("{generation: {top_p: 0}}", "generation.top_p", "0 cannot be used. Input should be greater than 0."),
        ("{generation: {top_p: 1.1}}", "generation.top_p", "less than or equal to 1."),
        ("{generation: {temperature: 0}}", "generation.temperature", "Input should be greater than 0."),
        ("{generation: {max_new_tokens: 6.5}}", "generation.max_new_tokens", "should be a valid integer"),
        (
            "{algorithm: {name: wind, eta: 0}}",
            "algorithm.eta",
            "0 cannot be used. Input should be greater than 0.",
        ),
        ("{algorithm: {name: wind, beta: -0.1}}", "algorithm.beta", "greater than or equal to 0."),
        ("{algorithm: {name: wind, normalizer: mean}}", "algorithm.normalizer", "Input should be 'constant'"),
        ("{algorithm: {name: wnd}}", "algorithm", "there is no 'wnd'. Use one of: "),
        ("{algorithm: {eta: 1}}", "algorithm", "give a `name`. Use one of: "),
        ("{algorithm: wind}", "algorithm", "'wind' cannot be used. Write a mapping of settings"),
        ("{judge: {name: oracle}}", "judge", "there is no 'oracle'. Use one of: "),
        ("{judge: {name: null}}", "judge", "give a `name`. Use one of: "),
        ("{judge: {function: null}}", "judge.function", "Input should be a valid string."),
        ("{judge: {temperature: 0}}", "judge.temperature", "Input should be greater than 0."),
        ("{generation: {engine: {name: tgi}}}", "generation.engine", "there is no 'tgi'. Use one of: "),
        (
            "{prompts: {shards: 33, per_iteration: 32}}",
            "prompts.shards",
            "Lower prompts.shards or raise prompts.",
        ),
        ("{prompts: {per_iteration: 0}}", "prompts.per_iteration", "Input should be greater than 0."),
        ("{prompts: {train: null}}", "prompts.train", "is required. Name a JSONL or Parquet file"),
        ("{prompts: {train: ''}}", "prompts.train", "is required. Name a JSONL or Parquet file"),
        ("{training: {batch_size: 8, micro_batch_size: 9}}", "training.micro_batch_size", "Use 8 or fewer."),
        (
            "{prompts: {per_iteration: 16}, training: {batch_size: 32, micro_batch_size: 32}}",
            "training.micro_batch_size",
            "32 exceeds the 16 prompts of a step. Use 16 or fewer.",
        ),
        (
            "{training: fast}",
            "training",
            "'fast' cannot be used. Write a mapping of settings, or leave it out.",
        ),
        (
            "{training: null}",
            "training",
            "None cannot be used. Write a mapping of settings, or leave it out.",
        ),
        ("{training: {learning_rate: .nan}}", "training.learning_rate", "Input should be a finite number."),
        ("{training: {warmup_ratio: 1}}", "training.warmup_ratio", "Input should be less than 1."),
        ("{training: {schedule: step}}", "training.schedule", "'linear', 'cosine' or 'constant'."),
        (
            "{policy: {model: null}}",
            "policy.model",
            "is required. Name a Hugging Face directory or hub id, or add",
        ),
        (
            "{policy: {prompt_format: 'Q: {question}'}}",
            "policy.prompt_format",
            "lacks '{prompt}'. Write it where",
        ),
        (
            "{policy: {trust_remote_code: 'yes'}}",
            "policy.trust_remote_code",
            "Input should be a valid boolean.",
        ),
        ("{iterations: 0}", "iterations", "Input should be greater than or equal to 1."),
        ("{iterations: 101}", "iterations", "Input should be less than or equal to 100."),
        ("{seed: -1}", "seed", "-1 cannot be used. Input should be greater than or equal to 0."),
        ("{seed: '1'}", "seed", "'1' cannot be used. Input should be a valid integer."),
        ("{seed: true}", "seed", "Input should be a valid integer."),
        (
            "{resources: {train: {gpu: -1}}}",
            "resources.train.gpu",
            "Input should be greater than or equal to 0.",
        ),
        (
            "{demo: {}, policy: {model: null}, prompts: {train: null, column: instruction}}",
            "prompts.column",
            "stands beside a `demo` section",
        ),
        (
            "{policy: {max_prompt_tokens: 64}, prompts: {drop_longer: 65}}",
            "prompts.drop_longer",
            "65 exceeds policy.max_prompt_tokens, 64",
        ),
        ("{demo: {}, prompts: {train: null}}", "policy.model", "stands beside a `demo` section"),
        (
            "{generation: {engine: {name: vllm, tensor_parallel: 2}}, resources: {evaluate: {gpu: 1}}}",
            "resources.evaluate.gpu",
            "1 is too few, generation.engine.tensor_parallel is 2. Make them equal.",
        ),
        ("{demo: {}, policy: {model: null}}", "prompts.train", "its own prompts. Remove one of the two."),
        (
            "{demo: {}, policy: {model: null}, prompts: {train: null, evaluation: e.jsonl}}",
            "prompts.evaluation",
            "Remove one of the two.",
        ),
        ("{demo: {number: 3}}", "demo.number", "unknown key. Did you mean 'numbers'?"),
        ("{generation: {temperature: 1.0e-300}}", "generation.temperature", "are not finite. Use 0.0001 or more."),
        ("{generation: {responses: 1000000}}", "generation.responses", "less than or equal to 10000."),
        ("{evaluation: {responses: 1000000}}", "evaluation.responses", "less than or equal to 10000."),
        ("{training: {lora: {rank: 1000000}}}", "training.lora.rank", "less than or equal to 10000."),
        ("{training: {epochs: 1000000}}", "training.epochs", "less than or equal to 10000."),
        ("{resources: {start: {cpu: 1000000}}}", "resources.start.cpu", "less than or equal to 10000."),
        ("{demo: {layers: 1000}}", "demo.layers", "less than or equal to 100."),
        ("{demo: {hidden_size: 7}}", "demo", "hidden_size 7 is no multiple of 2 × heads, 8. Make it one, such as 8."),
        ("{demo: {hidden_size: 21, heads: 3}}", "demo", "no multiple of 2 × heads, 6. Make it one, such as 18."),
    ],
)
def test_a_bad_setting_is_refused_by_key_with_a_remedy(extra, key, message):
    line = refusal(with_settings(extra))
    assert "\n" not in line
    assert line.startswith(f"{key}: ")
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epochs: [", "the config is not valid YAML: while parsing a flow node"),
        ("seed: 1\n\tepochs: 2", "the config is not valid YAML: while scanning"),
        ("", "the config must be a mapping of sections, it is NoneType."),
        ("- seed: 1", "the config must be a mapping of sections, it is list."),
        ("seed 1", "the config must be a mapping of sections, it is str."),
        (MINIMAL + "seed: 1\nseed: 2", "seed: is given twice in one section. Keep one of the two."),
        (MINIMAL + "training: {epochs: 1, epochs: 2}", "epochs: is given twice in one section."),
        ("seed: 1", "policy.model: is required. Name a Hugging Face directory or hub id, or add `demo: {}`."),
        ("policy: {model: m}\nprompts: {train: p.jsonl}", "judge: give a `name`. Use one of: "),
        (MINIMAL.replace(', function: "package.module:score"', ""), "judge.function: is required."),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(text, message):
    assert refusal(text).startswith(message)


def test_all_problems_are_named_at_once():
    text = with_settings("{seed: -1, iteration: 3, training: {epochs: 0}, generation: {top_p: 2}}")
    assert [line.partition(":")[0] for line in refusal(text).splitlines()] == [
        "seed",
        "generation.top_p",
        "training.epochs",
        "iteration",
    ]
    text = with_settings("{generation: {responses: 1}, prompts: {shards: 9, per_iteration: 8}}")
    assert [line.partition(":")[0] for line in refusal(text).splitlines()] == [
        "generation.responses",
        "prompts.shards",
    ]


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
