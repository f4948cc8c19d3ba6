"""Configs that are refused: each problem by its key, with a remedy, and all of them at once."""

from __future__ import annotations

import pytest

from components.config.errors import ConfigError
from components.run_config import parse
from support.configs import MINIMAL, refusal, with_settings


@pytest.mark.parametrize(
    ("extra", "key", "message"),
    [
        ("{trainig: {}}", "trainig", "unknown key. Did you mean 'training'?"),
        ("{rollouts: 3}", "rollouts", "unknown key. Known keys: seed, deterministic, iterations, start_from, demo, "),
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
    ("value", "line"),
    [
        (
            "q_proj",
            "training.lora.target_modules: 'q_proj' cannot be used. Input should be 'all-linear' or a valid "
            "list. Write a list, as in [one, two].",
        ),
        (
            "[1]",
            "training.lora.target_modules.0: 1 cannot be used. Input should be a valid string. Put text that looks "
            "like a number in quotes.",
        ),
    ],
)
def test_a_value_that_may_be_one_of_several_has_one_line(value, line):
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\ntraining: {{lora: {{target_modules: {value}}}}}")
    assert str(caught.value) == line


@pytest.mark.parametrize("judge", ["false", "[]", "0", "''", "{}"])
def test_the_demo_replaces_no_judge_that_is_given(judge):
    with pytest.raises(ConfigError, match=r"^judge: "):
        parse(f"demo: {{}}\njudge: {judge}")
