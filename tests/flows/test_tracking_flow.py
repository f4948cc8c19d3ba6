"""A run that fails after it has told its trackers, is resumed, and is one run in each of them."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.flows.flow_home import card_content
from support.flows.wind_runs import FLOW, INJECT, SMOKE

FAULT = {"FAIL_AT": "evaluate_1", "FAIL_HOW": "raise after"}


@pytest.mark.slow
def test_a_resumed_run_stays_the_same_tracked_run(run_flow, flow_env, tmp_path):
    own = tmp_path / "own"
    here = [name for name in ("tensorboard",) if importlib.util.find_spec(name)]
    trackers = [{"name": "jsonl", "folder": str(own)}, *({"name": name} for name in here)]
    config = {**yaml.safe_load(SMOKE.read_text()), "iterations": 1, "trackers": trackers, "live_cards": []}
    config["prompts"]["shards"] = 1
    path = os.pathsep.join([flow_env["PYTHONPATH"], str(Path(__file__).parent)])
    env = {**FAULT, "PYTHONPATH": path}
    failed = run_flow(FLOW, config=config, env=env, status="failed", decospecs=[INJECT], max_workers=1)
    metrics = tmp_path / "wind_store" / "metrics" / f"WindFlow-{failed.run.id}.jsonl"
    assert f"Metrics: {metrics} grows by a line for each iteration." in failed.stdout
    assert len(metrics.read_text().splitlines()) == 1

    resumed = run_flow(FLOW, resume=failed.run.id)
    (line,) = metrics.read_text().splitlines()
    assert json.loads(line)["iteration"] == 1
    assert json.loads(line)["win_rate"] == resumed.run.data.history["win_rate"][0]
    assert [one.name for one in metrics.parent.iterdir()] == [metrics.name]
    assert (own / metrics.name).read_text() == metrics.read_text()
    links = {"metrics": str(metrics), "jsonl": str(own / metrics.name)}
    if here:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        links["tensorboard"] = str(tmp_path / "wind_store" / "trackers" / "tensorboard" / metrics.stem)
        events = EventAccumulator(links["tensorboard"]).Reload().Scalars("win_rate")
        assert [event.step for event in events] == [1]
    assert resumed.run.data.links == links
    printed = re.sub(" +", " ", resumed.stdout)
    command = [sys.executable, str(FLOW), "card", "get", f"{resumed.run.id}/end", str(tmp_path / "card.html")]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | flow_env)
    card = card_content((tmp_path / "card.html").read_text())
    for name, address in links.items():
        assert f"{name} {address}" in printed
        assert address in card
