"""The JSON schema that `wind schema` prints: it takes what the config takes, and refuses what an editor should mark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from components.bandit.config import parse as parse_laboratory
from components.cli import main
from components.cli.schema import laboratory, schema
from components.config.errors import ConfigError
from components.config.strict_yaml import load_yaml
from components.run_config import parse

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "flows" / "configs"
RUNS = sorted([*CONFIGS.glob("*.yaml"), *ROOT.glob("examples/**/*.yaml")])
BANDITS = sorted(CONFIGS.glob("bandit/*.yaml"))
OWN = "policy: {model: m}\nprompts: {train: p.jsonl}\njudge: {name: verifier, function: 'm:score'}\n"


@pytest.fixture(scope="module")
def editor():
    """What an editor has: `editor(values)` gives the paths at which it would mark something."""
    found = schema()
    Draft202012Validator.check_schema(found)
    validator = Draft202012Validator(found)
    return lambda values: [".".join(map(str, error.absolute_path)) for error in validator.iter_errors(values)]


def named(path):
    return path.relative_to(ROOT).as_posix()


def test_there_are_configs():
    assert {"flows/configs/demo.yaml", "flows/configs/compare.yaml", "examples/smollm2/config.yaml"} <= set(
        map(named, RUNS)
    )
    assert [path.stem for path in BANDITS] == ["laboratory", "rock_paper_scissors", "smoke"]


@pytest.mark.parametrize("path", RUNS, ids=named)
def test_every_shipped_config_is_valid(editor, path):
    text = path.read_text("utf-8")
    assert editor(load_yaml(text)) == []
    assert editor(parse(text)) == []  # as it is written out, with every default


@pytest.mark.parametrize("path", BANDITS, ids=named)
def test_every_laboratory_is_valid(path):
    validator = Draft202012Validator(laboratory())
    values = load_yaml(path.read_text("utf-8"))
    assert list(validator.iter_errors(values)) == []
    assert [list(e.absolute_path) for e in validator.iter_errors({**values, "seeds": ["one"]})] == [["seeds", 0]]


@pytest.mark.parametrize(
    "more",
    [
        "judge: {name: verifier, function: 'm:score', cut_thinking: true, truncated_penalty: lose}",
        "judge: {name: pairrm, cut_thinking: false}",
        "judge: null\ndemo: {}\npolicy: {}\nprompts: {}",
        "policy: {model: m, template_options: {enable_thinking: false}}",
        "start_from: WindFlow/12",
        "compare: {seeds: [3, 5], arms: {a.b_c+d-1: {}}, budget: {samples: 9999}}",
        "compare: {arms: {a: {generation: {responses: 2}, prompts: {shards: 1}}}, budget: {seconds: 9.5}}",
        "judge: {name: ensemble, truncated_penalty: lose, judges: [{name: pairrm}]}",
        "judge: {name: pairrm, cut_thinking: ['<a>', '</a>'], truncated_penalty: 0.5}",
        "judge: {name: ensemble, judges: [{name: pairrm, weight: 2}, {name: verifier, function: 'm:score'}]}",
        "judge: {name: ensemble, judges: [{name: ensemble, judges: [{name: pairrm}]}]}",
        "algorithm: {name: wind, clip: null}",
        "training: {lora: {target_modules: [q_proj]}, learning_rate: 1e-6}",
        "generation: {engine: {name: vllm, tensor_parallel: 2}, stop: ['#']}",
        "compare: {arms: {a: {}, b: {algorithm: {name: sppo}, training: {epochs: 2}, generation: {responses: 4}}}}",
        "compare: {sweep: {training.epochs: [1, 2]}, arms: null}",
        "compare: {sweep: {training.epochs: [1, 2]}, arms: {}}",
        "start_from: latest\nlive_cards: [train]\ncluster: {schedule: {cron: '0 3 * * 1'}}",
    ],
)
def test_what_the_config_takes_is_not_marked(editor, more):
    values = load_yaml(OWN) | load_yaml(more)
    parse(json.dumps(values))
    assert editor(values) == []


@pytest.mark.parametrize(
    ("more", "marked"),
    [
        ("trainin: {}", ""),
        ("seed: -1", "seed"),
        ("training: {epochs: two}", "training.epochs"),
        ("training: {epoch: 2}", "training"),
        ("judge: {name: verifier}", "judge"),
        ("judge: {name: nobody}", "judge"),
        ("judge: {name: pairrm, function: 'm:score'}", "judge"),
        ("judge: {name: pairrm, truncated_penalty: -1}", "judge"),
        ("judge: {name: pairrm, cut_thinking: 3}", "judge"),
        ("judge: {name: ensemble, judges: [{name: pairrm, weight: 0}]}", "judge"),
        ("judge: {name: ensemble, judges: [{name: pairrm, wait: 1}]}", "judge"),
        ("algorithm: {name: wind, clip: 2}", "algorithm"),
        ("generation: {engine: {name: transformers, tensor_parallel: 2}}", "generation.engine"),
        ("compare: {arms: {a: {training: {epoch: 2}}}}", "compare"),
        ("compare: {arms: {a: {algorithm: {name: wind, etta: 2}}}}", "compare"),
        ("judge: {name: pairrm, cut_thinking: [a, b, c]}", "judge"),
        ("judge: {name: pairrm, cut_thinking: ['<a>', ' ']}", "judge"),
        ("judge: {name: pairrm, truncated_penalty: 1.0e+101}", "judge"),
        ("judge: {name: ensemble, truncated_penalty: 1, judges: [{name: pairrm}]}", "judge"),
        ("compare: {arms: {a: {}}, seeds: [1, 1]}", "compare"),
        ("compare: {arms: {é: {}}}", "compare"),
        (f"compare: {{arms: {{{41 * 'a'}: {{}}}}}}", "compare"),
        ("compare: {arms: {a: {}}, budget: {}}", "compare"),
        ("compare: {arms: {a: {}}, budget: {samples: 9999, seconds: 9}}", "compare"),
        ("compare: {arms: {a: {generation: {responses: null}}}}", "compare"),
        ("compare: {arms: {a: {generation: {responses: 1}}}}", "compare"),
        ("compare: {arms: {a: {prompts: {shards: 0}}}}", "compare"),
        ("start_from: a/b/c", "start_from"),
        ("policy: {model: m, template_options: {messages: []}}", "policy.template_options"),
        ("judge: null", ""),
        ("generation: {responses: 1}", "generation.responses"),
        ("generation: {temperature: 0.00001}", "generation.temperature"),
        ("compare: {sweep: {}}", "compare"),
        ("compare: {sweep: null, arms: {a: {}}}", "compare"),
        ("compare: {arms: null}", "compare"),
        ("resources: {train: {gpus: 1}}", "resources.train"),
    ],
)
def test_what_the_config_refuses_is_marked(editor, more, marked):
    values = load_yaml(OWN) | load_yaml(more)
    with pytest.raises(ValueError, match=r"."):
        parse(json.dumps(values))
    assert editor(values) == [marked]


@pytest.mark.parametrize(
    ("values", "marked"),
    [
        ("methods: {wind: {}, slow: {name: wind, eta: 0.1}}", []),
        ("methods: {wind: {name: bond}}", []),
        ("settings: {reward: {}, mine: {name: reward}}", []),
        ("methods: {wind: {etta: 0.1}}", ["methods.wind"]),
        ("methods: {slow: {eta: 0.1}}", ["methods.slow"]),
        ("methods: {wind: {eta: -1}}", ["methods.wind"]),
        ("settings: {reward: {nothing: 1}}", ["settings.reward"]),
    ],
)
def test_a_laboratorys_methods_and_bandits_are_known(values, marked):
    found = Draft202012Validator(laboratory()).iter_errors(load_yaml(values))
    assert [".".join(map(str, error.absolute_path)) for error in found] == marked
    if marked:
        with pytest.raises(ConfigError):
            parse_laboratory(values)
    else:
        parse_laboratory(values)


def test_a_judge_is_required_but_for_the_demo(editor):
    assert editor({"demo": {}}) == []
    assert editor({"policy": {"model": "m"}, "prompts": {"train": "p.jsonl"}}) == [""]


def test_the_command(capsys):
    main(["schema"])
    assert json.loads(capsys.readouterr().out) == schema()
    main(["schema", "--bandit"])
    assert json.loads(capsys.readouterr().out) == laboratory()
