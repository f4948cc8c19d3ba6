"""The section `compare`: what an arm becomes, what a budget buys, and in which words the rest is refused."""

from __future__ import annotations

import pytest
import yaml

from components.comparison.arms import at_once
from components.config.compare import prompts_within
from components.config.errors import ConfigError
from components.run_config import RunConfig, parse

COMPARE = """
demo: {}
iterations: 4
prompts: {per_iteration: 100, shards: 4}
generation: {responses: 8, engine: {name: transformers, batch_size: 64}}
training: {batch_size: 20, micro_batch_size: 10, epochs: 2}
algorithm: {name: wind, eta: 3, beta: 0.1}
"""


def parsed(compare: str) -> RunConfig:
    return RunConfig.model_validate(parse(COMPARE + f"compare: {compare}"))


def refusal(compare: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(COMPARE + f"compare: {compare}")
    return str(caught.value)


def test_an_arm_is_the_config_with_its_own_in_place():
    arms = (
        "{same: {}, other: {algorithm: {name: wind, eta: 5}, training: {epochs: 1}, "
        "generation: {responses: 4, engine: {name: transformers}}, prompts: {per_iteration: 50, shards: 1}}}"
    )
    config = parsed(f"{{arms: {arms}}}")
    whole = config.model_dump() | {"compare": None}
    assert config.arm("same").model_dump() == whole
    defaults = parse("demo: {}")
    expected = whole | {
        "algorithm": defaults["algorithm"] | {"eta": 5.0},  # replaced as a whole: beta is the default's
        "training": whole["training"] | {"epochs": 1},
        "generation": whole["generation"] | {"responses": 4, "engine": defaults["generation"]["engine"]},
        "prompts": whole["prompts"] | {"per_iteration": 50, "shards": 1},
    }
    assert config.arm("other").model_dump() == expected


def test_defaults_are_filled_in():
    compare = parse(COMPARE + "compare: {arms: {a: {}}}")["compare"]
    assert compare == {"seeds": [0, 1, 2], "arms": {"a": {}}, "budget": None, "levels": None}
    assert parse(COMPARE)["compare"] is None


@pytest.mark.parametrize(
    ("arm", "prompts"),
    [
        ("{}", 100),  # 3200 / (4·8)
        ("{generation: {responses: 3}}", 266),  # 3200 / 12 = 266.7
        ("{share: 0.29}", 29),  # 928 / 32, though 0.29·3200 is 927.9999999999999
        ("{algorithm: {name: jbond}}", 133),  # 3200 / (4·3·2 epochs) = 133.3
        ("{algorithm: {name: jbond}, training: {epochs: 1}, share: 0.5}", 133),
        ("{algorithm: {name: dpo}}", 100),
    ],
)
def test_samples_become_prompts_per_iteration(arm, prompts):
    config = parsed(f"{{budget: {{samples: 3200}}, arms: {{a: {arm}}}}}").arm("a")
    assert config.prompts.per_iteration == prompts


def test_seconds_leave_the_prompts_open():
    assert parsed("{budget: {seconds: 60}, arms: {a: {share: 0.5}}}").arm("a").prompts.per_iteration == 100


def test_the_least_budget_is_a_batch():
    assert prompts_within(40, 0.5, iterations=4, batch_size=20, unit="seconds") == 20
    with pytest.raises(ConfigError) as caught:
        prompts_within(39.9, 0.5, iterations=4, batch_size=20, unit="seconds")
    assert str(caught.value) == (
        "prompts.per_iteration: 39.9 seconds over 4 iterations at 0.5 a prompt are 19 prompts, less than a batch of 20."
        " Give the arm 40 seconds or more, or lower its training.batch_size."
    )


@pytest.mark.parametrize("text", ["{arms: {a: {share: 0.5}}, budget: {samples: 3200}}", "{arms: {a: {}}, seeds: [3]}"])
def test_a_filled_config_is_a_fixed_point(text):
    filled = parse(COMPARE + f"compare: {text}")
    assert parse(yaml.safe_dump(filled)) == filled


ARM = "compare.arms.a"
SHARED = "cannot differ between arms: "


@pytest.mark.parametrize(
    ("compare", "key", "message"),
    [
        ("{arms: {}}", "compare.arms", "Dictionary should have at least 1 item"),
        ("{}", "compare.arms", "is required."),
        ("{arms: {a: {}}, seed: [1]}", "compare.seed", "unknown key. Did you mean 'seeds'?"),
        ("{arms: {a: null}}", ARM, "None cannot be used. Write a mapping of settings"),
        ("{arms: {a/b: {}}}", "compare.arms", "'a/b' cannot name an arm. Use up to 40 letters, digits,"),
        ("{arms: {a: {}}, seeds: []}", "compare.seeds", "List should have at least 1 item"),
        ("{arms: {a: {}}, seeds: [1, 2, 1]}", "compare.seeds", "[1, 2, 1] holds a seed twice"),
        ("{arms: {a: {}}, seeds: [-1]}", "compare.seeds.0", "greater than or equal to 0."),
        ("{arms: {a: {}}, levels: [0.5]}", "compare.levels.0", "Input should be greater than 0.5."),
        ("{arms: {a: {}}, levels: [1]}", "compare.levels.0", "Input should be less than 1."),
        ("{arms: {a: {}}, budget: {}}", "compare.budget", "give either samples or seconds."),
        ("{arms: {a: {}}, budget: {samples: 9, seconds: 9}}", "compare.budget", "give either samples or seconds."),
        ("{arms: {a: {}}, budget: {samples: 0}}", "compare.budget.samples", "greater than 0."),
        (
            "{arms: {a: {share: 0}}, budget: {samples: 3200}}",
            f"{ARM}.share",
            "0 leaves the arm nothing to draw. Remove the arm, or give it",
        ),
        ("{arms: {a: {share: 0.0}}, budget: {samples: 3200}}", f"{ARM}.share", "0 leaves the arm nothing to draw."),
        ("{arms: {a: {share: -1}}, budget: {samples: 3200}}", f"{ARM}.share", "greater than 0."),
        ("{arms: {a: {share: false}}, budget: {samples: 3200}}", f"{ARM}.share", "valid number."),
        ("{arms: {a: {seed: 1}}}", f"{ARM}.seed", SHARED + "seeds stand in compare.seeds."),
        ("{arms: {a: {iterations: 1}}}", f"{ARM}.iterations", SHARED + "all arms have the same T."),
        ("{arms: {a: {demo: {}}}}", f"{ARM}.demo", SHARED + "all arms start from one base policy."),
        ("{arms: {a: {policy: {model: m}}}}", f"{ARM}.policy", SHARED + "all arms start from one base policy."),
        ("{arms: {a: {judge: {name: verifier}}}}", f"{ARM}.judge", SHARED + "one judge compares all arms."),
        ("{arms: {a: {evaluation: {responses: 3}}}}", f"{ARM}.evaluation", SHARED + "all arms train on the same"),
        ("{arms: {a: {resources: {}}}}", f"{ARM}.resources", SHARED + "all arms go through the same steps."),
        ("{arms: {a: {prompts: {subset: x}}}}", f"{ARM}.prompts.subset", SHARED + "all arms train on the same"),
        ("{arms: {a: {prompts: {evaluation_split: x}}}}", f"{ARM}.prompts.evaluation_split", SHARED + "all arms"),
        ("{arms: {a: {prompts: {leave_out: [x]}}}}", f"{ARM}.prompts.leave_out", SHARED + "all arms train on the"),
        ("{arms: {a: {prompts: {held_out: 3}}}}", f"{ARM}.prompts.held_out", SHARED + "all arms train on the same"),
        ("{arms: {a: {generation: {top_p: 0.5}}}}", f"{ARM}.generation.top_p", SHARED + "held-out prompts are"),
        ("{arms: {a: {generation: {stop: [x]}}}}", f"{ARM}.generation.stop", SHARED + "held-out prompts are"),
        ("{arms: {a: {generation: {top_k: 5}}}}", f"{ARM}.generation.top_k", SHARED + "held-out prompts are"),
        ("{arms: {a: {generation: {min_p: 0.5}}}}", f"{ARM}.generation.min_p", SHARED + "held-out prompts are"),
        ("{arms: {a: {training: {nodes: 2}}}}", f"{ARM}.training.nodes", SHARED + "each trains on one machine."),
        ("{arms: {a: {trainig: {}}}}", f"{ARM}.trainig", "unknown key. Did you mean 'training'?"),
        ("{arms: {a: {training: {epoch: 1}}}}", f"{ARM}.training.epoch", "unknown key. Did you mean 'epochs'?"),
        ("{arms: {a: {training: {epochs: 0}}}}", f"{ARM}.training.epochs", "Input should be greater than 0."),
        ("{arms: {a: {training: 1}}}", f"{ARM}.training", "1 cannot be used. Write a mapping"),
        ("{arms: {a: {algorithm: {name: wnd}}}}", f"{ARM}.algorithm", "there is no 'wnd'. Use one of: "),
        ("{arms: {a: {algorithm: {eta: 1}}}}", f"{ARM}.algorithm", "give a `name`. Use one of: "),
        ("{arms: {a: {algorithm: {name: dpo, eta: 1}}}}", f"{ARM}.algorithm.eta", "unknown key. Did you mean 'beta'?"),
        ("{arms: {a: {generation: {responses: 1}}}}", f"{ARM}.generation.responses", "1 is too few"),
        ("{arms: {a: {prompts: {shards: 101}}}}", f"{ARM}.prompts.shards", "101 shards cannot share 100 prompts."),
        ("{arms: {a: {prompts: {shard: 1}}}}", f"{ARM}.prompts.shard", "unknown key. Did you mean 'shards'?"),
        ("{arms: {a: {share: 0.5}}}", f"{ARM}.share", "there is no budget to share. Add compare.budget"),
        ("{arms: {a: {share: 1.5}}, budget: {samples: 3200}}", f"{ARM}.share", "less than or equal to 1."),
        (
            "{arms: {a: {prompts: {per_iteration: 9}}}, budget: {samples: 3200}}",
            f"{ARM}.prompts.per_iteration",
            "follows from compare.budget. Remove one of the two.",
        ),
        (
            "{arms: {a: {share: 0.5}}, budget: {samples: 1200}}",
            f"{ARM}.prompts.per_iteration",
            "600 samples over 4 iterations at 8 a prompt are 18 prompts, less than a batch of 20. "
            "Give the arm 640 samples or more, or lower its training.batch_size.",
        ),
    ],
)
def test_a_bad_comparison_is_refused_by_key_with_a_remedy(compare, key, message):
    line = refusal(compare)
    assert "\n" not in line
    assert line.startswith(f"{key}: ")
    assert message in line


def test_all_problems_of_an_arm_are_named_at_once():
    said = refusal("{arms: {good: {}, bad: {training: {epochs: 0, batch: 1}}}}")
    assert [line.partition(": ")[0] for line in said.splitlines()] == [
        "compare.arms.bad.training.epochs",
        "compare.arms.bad.training.batch",
    ]


@pytest.mark.parametrize(
    "arms",
    [
        "{a: {training: {epochs: 1}}, b: {training: {epochs: 1}}}",
        "{a: {}, b: {training: {epochs: 2}, generation: {responses: 8}}}",  # as in the rest of the config
        "{a: {algorithm: {name: dpo}}, c: {}, b: {algorithm: {name: dpo, beta: 0.1}}}",  # the default
    ],
)
def test_two_names_of_one_arm(arms):
    assert refusal(f"{{arms: {arms}}}") == "compare.arms.b: has the settings of a, to the last. Keep one of the two."


@pytest.mark.parametrize("budget", ["{seconds: 60}", "{samples: 3201}"])
def test_arms_that_differ_in_their_share_alone(budget):
    """Of 3,201 samples both shares buy the same 100 prompts."""
    assert len(parsed(f"{{arms: {{a: {{}}, b: {{share: 0.9999}}}}, budget: {budget}}}").compare.arms) == 2


@pytest.mark.parametrize("section", ["training", "algorithm"])
def test_a_section_of_an_arm_without_settings(section):
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\ncompare: {{arms: {{a: {{{section}: null}}}}}}")
    assert str(caught.value) == (
        f"compare.arms.a.{section}: None cannot be used. Write a mapping of settings, or leave it out."
    )


def test_what_does_not_fit_an_arm_is_named_where_it_stands():
    """The judge and a step's resources are those of all arms, which have no such keys."""
    judge = "{name: verifier, function: 'a:b', truncated_penalty: lose}"
    arms = "{a: {algorithm: {name: rloo}}, b: {training: {micro_batch_size: 9999}}}"
    with pytest.raises(ConfigError) as caught:
        parse(f"demo: {{}}\njudge: {judge}\ncompare: {{arms: {arms}}}")
    assert str(caught.value).startswith(
        "judge.truncated_penalty: for compare.arms.a: lose decides pairs, and rloo trains on"
    )
    with pytest.raises(ConfigError, match=r"^compare\.arms\.b\.training\.micro_batch_size: 9999 exceeds"):
        parse(f"demo: {{}}\ncompare: {{arms: {arms.replace('rloo', 'wind')}}}")


@pytest.mark.parametrize(
    ("processes", "tasks", "gpus", "expected"),
    [
        ((1, 1), 16, 0, 16),  # without GPUs
        ((1, 1), 16, 4, 4),
        ((1, 1), 3, 4, 3),
        ((2, 4), 16, 8, 4),  # all of the arm that needs fewer
        ((4, 4), 16, 6, 1),
        ((8, 8), 16, 4, 1),  # never begins, as the step itself says
    ],
)
def test_no_more_branches_train_at_once_than_there_are_gpus_for(processes, tasks, gpus, expected):
    one, other = (f"{{training: {{processes: {count}, epochs: {i}}}}}" for i, count in enumerate(processes, 1))
    assert at_once(parsed(f"{{arms: {{one: {one}, other: {other}}}}}"), tasks, gpus) == expected
