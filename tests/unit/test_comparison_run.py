"""The branches of a comparison, and all of them run in processes."""

from __future__ import annotations

import importlib.util
from multiprocessing import get_context

import pandas as pd
import pytest

from components.comparison import arms
from components.comparison.arms import Branch, branch_config, branches, in_order, run_in_process, seconds_per_prompt
from components.config.errors import ConfigError
from components.plan import space
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from support.runs import smoke

PROMPTS = 64  # of smoke's demo


def comparison(**compare):
    """The smoke preset, whose demo is made in even less time, with another comparison."""
    demo = {"steps": 2, "hidden_size": 16}
    return smoke("compare_smoke", demo=demo, training={"learning_rate": 1e-2}, compare=compare)


def start(config, root):
    with open_workspace(config, root, "start") as work:
        return arms.start(work)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("comparison") / "store")


@pytest.fixture(scope="module")
def started(root):
    return start(comparison(), root)


ALL = [Branch("wind", 0), Branch("jbond", 0), Branch("wind", 1), Branch("jbond", 1)]


def test_branches_come_seed_by_seed_and_results_arm_by_arm():
    config = comparison()
    assert branches(config) == ALL
    assert in_order(config, [ALL[i] for i in (3, 2, 0, 1)]) == [ALL[i] for i in (0, 2, 1, 3)]


@pytest.mark.parametrize("done", [ALL[:3], [*ALL, ALL[0]], [*ALL[:3], ALL[0]], [*ALL[:3], Branch("jbond", 2)]])
def test_a_branch_that_is_missing_repeated_or_unknown_is_told(done):
    with pytest.raises(ValueError, match="are not those of the config"):
        in_order(comparison(), done)


def test_the_prompts_of_the_run_itself_count_for_no_arm(started):
    assert comparison().prompts.per_iteration > PROMPTS  # and yet `start` did not refuse it


def test_an_arm_that_needs_more_prompts_than_exist_stops_at_start(root, started):
    """520 samples in 2 iterations at 4 a prompt are 65 prompts."""
    with pytest.raises(ConfigError, match=r"^compare\.arms\.wind\.prompts\.per_iteration: 65 exceeds the 64 training"):
        start(comparison(budget={"samples": 520}), root)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"lora": {"target_modules": ["nowhere"]}}, "lora.target_modules: 'nowhere' is no linear layer"),
        ({"lora": {"target_modules": ["q_proj"]}}, None),
        ({"gradient_checkpointing": True}, None),
    ],
)
def test_an_arms_training_is_checked_against_the_model_at_start(root, training, said):
    config = comparison(arms={"wind": {"training": training}})
    if said is None:
        start(config, root)
        return
    with pytest.raises(ConfigError) as caught:
        start(config, root)
    assert str(caught.value).startswith(f"compare.arms.wind.training.{said}")


def test_an_arm_whose_model_or_engine_is_not_fit_for_it_is_named(root, monkeypatch):
    """Before the base policy is made, where no model is needed to know."""
    find, made = importlib.util.find_spec, []
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "vllm" else find(name, *more))
    monkeypatch.setattr("components.demo.build", lambda *_, **__: made.append(1))
    config = comparison(arms={"wind": {}, "fast": {"generation": {"engine": {"name": "vllm"}}}})
    with pytest.raises(ConfigError, match=r"^compare\.arms\.fast\.generation\.engine: vLLM is not installed"):
        start(config, root)
    assert not made


def test_an_arm_whose_model_has_no_layers_to_checkpoint_is_named(root, monkeypatch):
    monkeypatch.setattr("components.training.gradient_checkpointing.GradientCheckpointingLayer", type("Other", (), {}))
    with pytest.raises(ConfigError, match=r"^compare\.arms\.wind\.training\.processes: \w+ has no Gradient"):
        start(comparison(arms={"wind": {"training": {"processes": 2}}}), root)


def test_there_must_be_room_for_what_each_arm_stores(root, monkeypatch):
    """Of all weights and their moments, for two seeds and two iterations; of an adapter beside it hardly anything."""
    asked, check = [], space.check
    monkeypatch.setattr(
        space, "check", lambda config, store, *runs, **how: (asked.append(runs), check(config, store, *runs, **how))
    )
    arms = {"whole": {}, "adapted": {"training": {"lora": {"rank": 2}}}, "anchored": {"algorithm": {"name": "jbond"}}}
    started = start(comparison(arms=arms, seeds=[0, 1]), root)
    with open_workspace(comparison(), root, "evaluate") as work:
        weights = work.policy(started.policy).model.num_parameters()
    whole, again, adapted, _, anchored, _ = asked[-1]
    assert whole == again
    assert (whole.policy, whole.state) == (4 * weights, 8 * weights)
    assert (anchored.policy, anchored.state) == (4 * weights, 12 * weights)
    assert 0 < adapted.policy < weights


def test_a_branch_has_its_arms_prompts_and_its_own_seed(root, started):
    config = branch_config(comparison(), Branch("jbond", 1), started, root)
    assert (config.seed, config.algorithm.name, config.compare) == (1, "jbond", None)
    assert (config.prompts.per_iteration, config.prompts.shards) == (21, 1)  # 128 / (2·3)


def with_seconds(seconds, share):
    return comparison(budget={"seconds": seconds}, arms={"wind": {"share": share}})


def test_seconds_become_prompts_by_what_one_costs(root, started, monkeypatch):
    monkeypatch.setattr(arms, "seconds_per_prompt", lambda *_: 0.125)
    config = branch_config(with_seconds(8.0, 0.5), Branch("wind", 1), started, root)
    assert config.prompts.per_iteration == 16  # 0.5·8 / (2·0.125)
    with pytest.raises(
        ConfigError, match=r"^compare\.arms\.wind\.prompts\.per_iteration: 1 seconds over 2 iterations at"
    ):
        branch_config(with_seconds(4.0, 0.25), Branch("wind", 1), started, root)
    with pytest.raises(ConfigError, match=r"^compare\.arms\.wind\.prompts\.per_iteration: 80 exceeds the 64 training"):
        branch_config(with_seconds(20.0, 1.0), Branch("wind", 1), started, root)


def test_a_prompt_costs_what_the_second_of_two_passes_took(root, started, monkeypatch):
    """Four batches of 8: (1 + 2 + 5) / 32 = 0.25."""
    passes = []

    def update(pipeline, *arguments):
        passes.append(pipeline.config.prompts)
        first = {"plan": 100.0, "generate": 100.0, "score": 100.0, "gather": 100.0, "train": 100.0}
        pipeline.seconds = {**first, "generate": 1.0, "score": 2.0, "train": 5.0} if len(passes) == 2 else first

    monkeypatch.setattr(Pipeline, "update", update)
    assert seconds_per_prompt(comparison().arm("wind"), started, root) == 0.25
    assert [(prompts.per_iteration, prompts.shards) for prompts in passes] == [(32, 1)] * 2


@pytest.mark.parametrize("arm", ["wind", "jbond"])
def test_a_real_prompt_costs_some_time(root, started, arm):
    assert 0 < seconds_per_prompt(comparison().arm(arm), started, root) < 10


@pytest.mark.slow
@pytest.mark.thorough
def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch):
    config, folder, done = comparison(), tmp_path / "finished", []

    def run():
        done.clear()
        return run_in_process(
            config, str(tmp_path / "store"), processes=2, folder=folder, progress=lambda *counts: done.append(counts)
        )

    first = run()
    assert list(first["arm"]) == ["wind"] * 4 + ["jbond"] * 4
    assert list(first["seed"]) == [0, 0, 1, 1] * 2
    assert (first.groupby(["arm", "seed"])["samples"].max() <= 128).all()
    assert first["kl"].nunique() == 8
    assert done == [(i, 4) for i in (1, 2, 3, 4)]
    files = {path.name.rsplit("-", 1)[0]: path for path in folder.iterdir()}
    assert files.keys() == {"start", "wind-0", "wind-1", "jbond-0", "jbond-1"}
    kept = pd.read_parquet(files["wind-0"])
    pd.testing.assert_frame_equal(kept, first.iloc[:2][kept.columns], check_exact=True)
    kept.assign(win_rate=0.125).to_parquet(files["wind-0"])  # to see that it is not run again
    files["jbond-1"].unlink()
    monkeypatch.setattr(arms, "get_context", lambda _: get_context("fork"))  # they need not import torch once more
    again = run()
    assert list(again["win_rate"][:2]) == [0.125] * 2
    same = [name for name in first if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(again[same].iloc[2:], first[same].iloc[2:], check_exact=True)
