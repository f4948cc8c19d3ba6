"""Whole iterations with stop strings, filters, cut thinking and truncated responses that lose, twice the same."""

from __future__ import annotations

import numpy as np
import pytest

from components import stages
from components.algorithms import leave_one_out
from components.config.errors import EngineError
from components.data.rollouts import load_rollout, load_scored
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from support.runs import smoke, total


def shown(response, prompt):
    """The sum of what the judge is shown of the numbers."""
    assert "9" not in response
    assert "3" not in response
    return total(response, prompt)


def config(**settings):
    """The smoke preset; a 9 ends a response, and what stands from a 3 to the next 5 is thinking."""
    judge = {"function": f"{__name__}:shown", "cut_thinking": ["3", "5"], "truncated_penalty": "lose"}
    generation = {"stop": ["9"], "top_k": 60, "min_p": 0.001, "max_new_tokens": 5}
    return smoke(**{"judge": judge, "generation": generation, "iterations": 1, **settings})


def test_the_preferences_that_train_are_those_of_the_settings(tmp_path):
    settings, root = config(), str(tmp_path / "store")
    with open_workspace(settings, root, "start") as work:
        started = stages.start(work)
        (shard, *_) = stages.plan(work, started.prompts, 1)
        rollout = stages.generate(work, started.policy, shard, 1)
        file = work.fetch(stages.score(work, started.policy, started.policy, rollout, shard)) / "rollout.parquet"
        drawn, scored = load_rollout(file), load_scored(file)
    whole = any("3" in text for text in drawn.texts)
    n, k = drawn.shape
    assert whole
    assert 0.1 < drawn.finished.mean() < 0.9
    for i in range(n):
        finished, reward, preference = drawn.finished[i], scored.reward[i], scored.preference[i]
        for a in range(k):
            for b in range(k):
                by_score = (np.sign(reward[a] - reward[b]) + 1) / 2
                expected = by_score if finished[a] == finished[b] else float(finished[a])
                assert preference[a, b] == expected
            others = [preference[a, b] for b in range(k) if b != a]
            assert leave_one_out(preference[None])[0, a] == pytest.approx(np.mean(others))


@pytest.mark.thorough(but=["wind"])
@pytest.mark.parametrize("algorithm", ["wind", "jbond"])
def test_a_run_is_the_same_twice(tmp_path, algorithm):
    """In a store of its own, and with other batches of the same responses."""
    manifests = []
    for name in ("one", "two"):
        run = Pipeline(config(algorithm={"name": algorithm}), str(tmp_path / name))
        started = run.start()
        made = run.update(started, started.policy, None, 1)
        manifests.append((started, made.trained.policy, made.trained.optimizer, made.counts))
    assert manifests[0] == manifests[1]
    assert manifests[0][1] != manifests[0][0].policy


def test_start_refuses_a_stop_string_that_no_text_holds(tmp_path):
    generation = {**config().generation.model_dump(), "stop": ["1 </s>"]}
    with (
        open_workspace(config(generation=generation), str(tmp_path), "start") as work,
        pytest.raises(EngineError, match=r"generation\.stop: '1 </s>' holds the special token '</s>'"),
    ):
        stages.start(work)
