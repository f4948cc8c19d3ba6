"""A run that continues from a failed one: as if the first had not failed and had gone on to the same iteration."""

import pandas as pd
import pytest

from support.flows.by_stages import undisturbed
from support.flows.wind_runs import FLOW, INJECT, figures, preset

SAME = ("policy", "optimizer", "reference", "prompts", "evaluated", "evaluated_reference", "counts", "rollouts")


@pytest.mark.slow
def test_going_on_from_a_failed_run(run_flow, tmp_path):
    """Two iterations at a constant rate, once without a flow, once in two runs on the same store."""
    config = preset(live_cards=[])  # they take processes of their own, a shard two tasks of an iteration
    config["prompts"]["shards"] = 1
    config["training"] |= {"schedule": "constant", "warmup_ratio": 0.0, "learning_rate": 1e-2}
    whole = undisturbed(config, tmp_path / "wind_store")

    fault = {"FAIL_AT": "train_2", "FAIL_HOW": "raise after"}
    failed = run_flow(FLOW, config=config, env=fault, status="failed", decospecs=[INJECT]).run
    stored = blobs(tmp_path)
    going_on = {**config, "iterations": 1, "start_from": f"WindFlow/{failed.id}"}
    result = run_flow(FLOW, config=going_on)
    data = result.run.data
    assert data.iteration == 2
    assert list(data.history["iteration"]) == [1, 2]
    for artifact in SAME:
        assert getattr(data, artifact) == getattr(whole, artifact), artifact
    pd.testing.assert_frame_equal(figures(data.history), figures(whole.history), check_exact=True)
    assert len(set(blobs(tmp_path)) - set(stored)) == 1  # the run's note refers to its history; the rest was there
    assert f"Continues from WindFlow/{failed.id} after its iteration 1" in result.stdout

    refused = run_flow(FLOW, config={**going_on, "start_from": "WindFlow/1"}, status="failed")
    assert "WindFlow/1: there is no such run in the datastore" in refused.stdout
    early = {**config, "start_from": f"WindFlow/{refused.run.id}"}
    assert "has no whole iteration" in run_flow(FLOW, config=early, status="failed").stdout


def blobs(home):
    return sorted(path.name for path in (home / "wind_store" / "sha256").glob("*/*"))
