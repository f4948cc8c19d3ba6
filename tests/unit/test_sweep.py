"""The arms that a sweep means: what each sets, what it is called, and which sweeps are refused."""

from __future__ import annotations

import pytest

from components.config.errors import ConfigError
from components.config.sweep import with_sweep
from components.run_config import RunConfig, parse


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
        (
            "{training.epochs: [1, 2, 1]}",
            "compare.sweep: training.epochs has 1 twice, which would be two equal arms. Keep one.",
        ),
        ("{algorithm.eta: [10, 10.0]}", "compare.sweep: algorithm.eta has 10.0 twice"),
        ("{training.learning_rate: [1e-5, 0.00001]}", "compare.sweep: training.learning_rate has 1e-05 twice"),
        ("{algorithm: [{name: dpo}, {name: dpo}]}", "compare.sweep: algorithm has {'name': 'dpo'} twice"),
        ("{algorithm: [{name: dpo}, {name: [dpo]}]}", "compare.sweep: two arms would have one name."),
        ("{training.epochs: [1, true]}", "compare.arms.epochs-true.training.epochs: True cannot be used."),
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


@pytest.mark.parametrize("more", ["", ", algorithm.eta: [1, 2]"])
def test_names_of_algorithms_alone_are_refused_where_one_lacks_a_setting(more: str) -> None:
    algorithm = "{name: wind}" if more else "{name: wind, eta: 3}"
    with pytest.raises(ConfigError) as caught:
        arms(f"{{sweep: {{algorithm.name: [wind, dpo]{more}}}}}", algorithm)
    assert str(caught.value) == (
        "compare.sweep: algorithm.name gives dpo the setting eta, which it does not have. Sweep whole sections, each "
        "with settings of its own: `algorithm: [{name: wind}, {name: dpo}]`."
    )


def test_names_of_algorithms_that_fit_and_sections_of_those_that_do_not() -> None:
    for sweep in ("{algorithm.name: [wind, dpo]}", "{algorithm: [{name: wind, eta: 3}, {name: dpo}]}"):
        found = arms(f"{{sweep: {sweep}}}")  # both have the run's own beta
        assert [arm.algorithm.name for arm in found.values()] == ["wind", "dpo"]
    with pytest.raises(ConfigError, match="there is no 'dpx'"):
        arms("{sweep: {algorithm.name: [wind, dpx]}}")
    with pytest.raises(ConfigError, match="give a `name`"):
        arms("{sweep: {algorithm.name: [wind, [dpo]]}}")


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


def names(**swept: list[object]) -> list[str]:
    """Of the arms of a sweep; `__` in a keyword stands for a dot."""
    sweep = {key.replace("__", "."): values for key, values in swept.items()}
    return list(with_sweep({"sweep": sweep}, {"name": "wind"})["arms"])


def test_long_keys_become_initials_in_the_names_of_all_arms() -> None:
    assert names(training__gradient_checkpointing=[True, False], training__learning_rate=[1e-5, 2e-5]) == [
        "gc-true_lr-1e-05",
        "gc-true_lr-2e-05",
        "gc-false_lr-1e-05",
        "gc-false_lr-2e-05",
    ]
    three = names(prompts__per_iteration=[256, 1024], training__learning_rate=[1e-5], training__epochs=[1, None])
    assert three[-1] == "pi-1024_lr-1e-05_epochs-null"


def test_keys_with_one_end_are_told_apart_by_what_stands_before() -> None:
    assert names(algorithm__rank=[4], training__lora__rank=[8]) == ["algorithm.rank-4_lora.rank-8"]
    assert names(rank=[4], training__lora__rank=[8]) == ["rank-4_lora.rank-8"]


def test_keys_are_cut_where_initials_are_too_long_or_one() -> None:
    assert names(training__learning_rate=[0.123456789], training__lora_rank=[123456789012]) == [
        "learnin-0.123456789_lora_ra-123456789012"
    ]
    assert names(algorithm__baselines=[0.123456789012345], training__temperature=[0.123456789012345]) == [
        "b-0.123456789012345_t-0.123456789012345"
    ]


def test_a_value_that_no_key_leaves_room_for_loses_its_end() -> None:
    long = {"name": "wind", "eta": 10.0, "beta": 0.02, "clip": None, "baseline_shift": 0.3}
    assert names(algorithm=[long, {"name": "dpo"}]) == ["algorithm-namewindeta10.0beta0.02clipNon", "algorithm-namedpo"]
