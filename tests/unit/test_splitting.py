"""`prompts.shards: auto`: as many shards as let each take a given time, by what the iteration before took."""

from __future__ import annotations

import logging
import math
import time

import pandas as pd
import pytest
import yaml

from components import stages
from components.config.errors import ConfigError
from components.plan.splitting import how_many, of_a_shard
from components.policy import model as policies
from components.prompts.config import PromptsConfig
from components.run_config import parse
from components.runtime.progress import Stopwatch
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from support.runs import smoke


def settings(**changes):
    return PromptsConfig(**{"shards": "auto", "per_iteration": 6000, "shard_minutes": 10, "most_shards": 50, **changes})


def took(generate, score, *, shards=4.0, prompts=1000):
    """A history of two iterations, of which the last counts."""
    first = {"seconds_generate": 1e6, "seconds_score": 1e6, "shards": 1.0, "prompts": 1}
    last = {"seconds_generate": generate, "seconds_score": score, "shards": shards, "prompts": prompts}
    return pd.DataFrame([first, last])


@pytest.mark.parametrize(
    ("history", "changes", "expected"),
    [
        # 250 prompts took 200 + 50 s: 1 s each, and 600 fit in ten minutes.
        (took(200, 50), {}, 10),
        (took(200, 50), {"per_iteration": 6001}, 11),
        (took(200, 50), {"shard_minutes": 2.5}, 40),
        (took(0.2, 0.05), {}, 1),
        (took(2000, 500), {}, 50),  # a hundred would be right
        (took(2000, 500), {"per_iteration": 7, "most_shards": 50}, 1),
        (took(2e6, 500), {"per_iteration": 7, "most_shards": 50}, 7),
        (took(200, 50), {"shards": 3}, 3),
    ],
)
def test_shards_take_the_time_that_is_given(history, changes, expected):
    assert how_many(settings(**changes), history) == expected


@pytest.mark.parametrize(
    "history", [None, took(1, 1).iloc[:0], took(1, 1).drop(columns="shards"), took(1, 1, shards=math.nan)]
)
def test_where_nothing_was_measured_there_are_as_many_as_may_be(history):
    assert how_many(settings(), history) == 50
    assert how_many(settings(per_iteration=20), history) == 20


def test_when_more_would_be_needed_a_line_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        how_many(settings(), took(200, 50))
        assert caplog.messages == []
        how_many(settings(), took(2000, 500))
    (line,) = caplog.messages
    assert line == (
        "prompts.shard_minutes: 50 shards take about 20 minutes each, and 100 would take 10. "
        "Raise prompts.most_shards (50)."
    )


@pytest.mark.parametrize(
    ("load", "changes", "expected"),
    [
        # Of 250 s, 50 loaded the models: 250 prompts took 200 s, and 6000 take 4800 in tasks of 600 - 50.
        (50, {}, 9),
        (50, {"shard_minutes": 2.5}, 48),
        (0, {}, 10),
        (math.nan, {}, 10),
        (250, {"shard_minutes": 15}, 1),
        (50, {"shard_minutes": 1.1, "most_shards": 7}, 7),  # 300 tasks of 66 s would be right
    ],
)
def test_loading_the_models_is_no_work_that_shards_share(load, changes, expected):
    assert how_many(settings(**changes), took(200, 50).assign(seconds_loading=load)) == expected


def test_the_second_iteration_has_the_minutes_that_are_asked_for():
    """Tasks load for 100 s and take half a second a prompt, of 10,000.

    A hundred tasks of 150 s; then 800 of 900 s are for 5,000 s of work: 7 tasks of 814 s, where 6 would take 933.
    """
    asked = settings(per_iteration=10_000, shard_minutes=15, most_shards=100)
    first = {"shards": how_many(asked, None), "prompts": 10_000, "seconds_loading": 100.0}
    assert first["shards"] == 100
    history = pd.DataFrame([{**first, "seconds_generate": 100.0, "seconds_score": 50.0}])
    assert how_many(asked, history) == 7


def test_the_slowest_of_uneven_shards_has_the_most_prompts():
    """Of ten prompts in four shards it has three, which take 30 s: ten prompts in tasks of 20 s are five shards."""
    history = took(20, 10, prompts=10)
    assert how_many(settings(per_iteration=10, shard_minutes=20 / 60), history) == 5
    assert how_many(settings(shard_minutes=1e-300), history) == 50


def test_when_loading_alone_takes_longer_a_line_says_so(caplog):
    """250 prompts took 130 s besides: 6000 take 3120, in tasks of 120 beside as much that loads."""
    with caplog.at_level(logging.WARNING):
        assert how_many(settings(shard_minutes=2), took(200, 50).assign(seconds_loading=120)) == 26
    (line,) = caplog.messages
    assert line == (
        "prompts.shard_minutes: loading the models takes 2 minutes of each task, and 2 are given for all. "
        "Tasks take about 4, so that half of that is work. Raise it to more."
    )


def test_sums_over_shards_become_a_shards_share():
    history = took(200.0, 50.0).assign(seconds_loading=8.0, seconds_train=7.0)
    found = of_a_shard(history).iloc[-1]
    assert (found["seconds_generate"], found["seconds_score"], found["seconds_loading"]) == (50.0, 12.5, 2.0)
    assert found["seconds_train"] == 7.0
    assert of_a_shard(None) is None
    assert of_a_shard(history.drop(columns="shards")).iloc[-1]["seconds_generate"] == 200.0


def test_a_stopwatch_counts_what_loads():
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])
    with pytest.raises(KeyError), watch.running():
        now[0] += 2
        raise KeyError
    now[0] += 100
    told = []
    show = watch.until_begun(lambda done, total, **_: told.append((done, total)))
    for seconds, done in ((3, 0), (50, 0), (50, 4)):
        now[0] += seconds
        show(done, 4)
    unknown = watch.until_begun(lambda *_, **__: None)
    for seconds, done in ((9, 1), (9, 0)):
        now[0] += seconds
        unknown(done, 4)
    assert (watch.seconds, told) == (5.0, [(0, 4), (0, 4), (4, 4)])


def test_in_one_process_too_an_iteration_goes_by_the_one_before(tmp_path, monkeypatch):
    """Three shards load a policy that takes a quarter of a second, to draw with; the second iteration has one."""
    load = policies.load

    def slowly(*arguments, **options):
        time.sleep(0.25)
        return load(*arguments, **options)

    monkeypatch.setattr(policies, "load", slowly)
    config = smoke(prompts={"shards": "auto", "most_shards": 3, "shard_minutes": 60})
    pipeline = Pipeline(config, str(tmp_path / "store"))
    *_, last = pipeline.iterate(pipeline.start())
    history = last.history
    assert history["shards"].tolist() == [3, 1]
    assert (history["seconds_loading"] >= 0.25 * history["shards"]).all()
    assert (history["seconds_loading"] < history["seconds_generate"] + history["seconds_score"]).all()


def test_an_iteration_counts_its_shards_and_the_next_goes_by_that(tmp_path):
    config = smoke(prompts={"shards": "auto", "most_shards": 3, "shard_minutes": 60})
    pipeline = Pipeline(config, str(tmp_path / "store"))
    started = pipeline.start()
    with open_workspace(config, str(tmp_path / "store"), "plan") as work:
        shards = stages.plan(work, started.prompts, 1)
        drawn = [stages.generate(work, started.policy, shard, 1) for shard in shards]
        pairs = zip(drawn, shards, strict=True)
        scored = [stages.score(work, started.policy, started.policy, rollout, shard) for rollout, shard in pairs]
        counts = stages.gather(work, shards, scored)
        assert len(shards) == counts["shards"] == 3
        seconds = {"seconds_generate": 2.0, "seconds_score": 1.0}
        history = pd.DataFrame([{**counts, **seconds}])
        (whole,) = stages.plan(work, started.prompts, 2, history)
        assert len(work.prompts(whole, "shard")) == config.prompts.per_iteration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": {"shards": "many"}}, "prompts.shards: 'many' cannot be used."),
        ({"prompts": {"shards": 0}}, "prompts.shards: 0 cannot be used."),
        ({"prompts": {"shards": "auto", "most_shards": 0}}, "prompts.most_shards: 0 cannot be used."),
        ({"prompts": {"shards": "auto"}, "algorithm": {"name": "jbond"}}, "prompts.shards: auto measures generate and"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump({"demo": {}, **changes}))
    assert str(caught.value).startswith(message)
    assert parse(yaml.safe_dump({"demo": {}, "prompts": {"shards": "auto"}}))["prompts"]["shards"] == "auto"
