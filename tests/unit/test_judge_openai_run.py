"""A whole run whose judge is behind an endpoint: what it took stands in `history`, the key nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.run_config import RunConfig, parse
from components.stages.in_process import Pipeline
from support.loopback_server import said, serving

pytestmark = pytest.mark.thorough

pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")

SMOKE = Path(__file__).parents[2] / "flows" / "configs" / "smoke.yaml"
KEY = "sk-test-0123456789"


def longer(body, number):
    _, a, b = body["messages"][0]["content"].split("|")
    return said("A" if len(a) > len(b) else "B", tokens=(len(a), 1))


def test_a_run_counts_requests_tokens_and_cost(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    values = parse(SMOKE.read_text())
    values |= {"iterations": 2}
    values["demo"] |= {"steps": 2, "hidden_size": 16}
    values["generation"] |= {"responses": 6}
    values["resources"] = {kind: {"cpu": 1} for kind in values["resources"]}
    with serving(longer) as server:
        values["judge"] = {
            "name": "openai",
            "base_url": f"{server.address}/v1",
            "model": "m",
            "prompt": "{prompt}|{response_a}|{response_b}",
            "opponents": 2,
            "price_in": 1e6,
            "price_out": 2e6,
        }
        pipeline = Pipeline(RunConfig.model_validate(values), str(tmp_path / "store"))
        started = pipeline.start()
        before = len(server.bodies)
        history = pipeline.run(started)
    asked = server.bodies[before:]
    read = sum(len(body["messages"][0]["content"].split("|")[1]) for body in asked)
    assert history.judge_requests.sum() == history.judge_tokens_out.sum() == len(asked)
    assert history.judge_tokens_in.sum() == read
    assert history.judge_cost.sum() == pytest.approx(read + 2 * len(asked))
    assert (history.judge_unparsed == 0).all()
    assert history.win_rate.between(0, 1).all()
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
