"""`prompts.shards: auto`: as many shards as let each take a given time, by what the iteration before took."""

from __future__ import annotations

import logging
import math

import pandas as pd
import pytest
import yaml

from components import stages
from components.config.errors import ConfigError
from components.prompts.config import PromptsConfig
from components.run_config import parse
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from components.stages.splitting import how_many
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
