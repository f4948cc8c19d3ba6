"""`prompts.shards: auto` through WindFlow: each task tells what it loaded, and the next iteration goes by that."""

from __future__ import annotations

import pytest

from support.flows.wind_runs import FLOW, preset

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_the_first_iteration_tells_the_second_how_many(run_flow):
    """Three where nothing is known; an hour is enough for all of the tiny prompts."""
    config = preset(live_cards=[])
    config["prompts"] |= {"shards": "auto", "most_shards": 3, "shard_minutes": 60}
    run = run_flow(FLOW, config=config).run
    history = run.data.history
    assert history["shards"].tolist() == [3, 1]
    for t, told in ((1, history.iloc[0]), (2, history.iloc[1])):
        shards = [task.data.seconds for task in run[f"score_{t}"]]
        assert len(shards) == told["shards"]
        slowest = [max(shard[f"loading_{kind}"] for shard in shards) for kind in ("generate", "score")]
        assert told["seconds_loading"] == sum(slowest)
        assert 0 < slowest[0] < told["seconds_generate"]
        assert slowest[1] < told["seconds_score"]
