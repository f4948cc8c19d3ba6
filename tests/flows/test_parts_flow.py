"""WindFlow with a judge that begins to return parts: a run continues from one without, and tells them by group."""

import html
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from components import demo
from components.config.sections import DemoConfig
from support.flows.flow_home import card_content
from support.flows.wind_runs import FLOW

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

PLAIN = """
def score(response, prompt):
    return len(response.split())
"""
PARTS = """
def score(response, prompt):
    words = response.split()
    return {"score": len(words), "words": len(words), "ends_even": bool(words) and words[-1][-1] in "02468"}
"""
KINDS = ["first", "second", "second", "lone"]
CONFIG = {
    "iterations": 1,
    "policy": {"model": "policy"},
    "prompts": {"train": "train.jsonl", "evaluation": "kinds.jsonl", "per_iteration": 8, "shards": 2},
    "generation": {"responses": 4, "max_new_tokens": 6},
    "judge": {"name": "verifier", "function": "judge.py:score"},
    "training": {"batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.01},
    "live_cards": [],
}


@pytest.fixture
def command(flow_env, tmp_path):
    """`command(*words)`: Python with these words, in the folder and the environment of the runs."""

    def run(*words):
        subprocess.run([sys.executable, *map(str, words)], check=True, cwd=tmp_path, env=os.environ | flow_env)

    return run


def test_a_run_goes_on_with_parts_and_groups(run_flow, command, tmp_path):
    (tmp_path / ".metaflow").mkdir()
    settings = DemoConfig(numbers=3, prompts=16, held_out=4, steps=5, batch_size=8, hidden_size=16, layers=1, heads=2)
    demo.build(tmp_path, settings, seed=0)
    records = map(json.loads, (tmp_path / "evaluation.jsonl").read_text().splitlines())
    lines = [json.dumps({**record, "kind": kind}) for record, kind in zip(records, KINDS, strict=True)]
    (tmp_path / "kinds.jsonl").write_text("\n".join(lines))

    (tmp_path / "judge.py").write_text(PLAIN)
    first = run_flow(FLOW, config={**CONFIG, "live_cards": ["score"]})
    assert not [name for name in first.run.data.history if name.startswith("part_")]
    assert "part       group" not in first.stdout
    assert "iteration 1 of 1: 2 of 2 shards done, 32 responses, " in first.stdout
    task = next(iter(first.run["score_1"]))
    command(FLOW, "card", "get", f"{first.run.id}/score_1/{task.id}", "live.html", "--id", "progress")
    live = card_content((tmp_path / "live.html").read_text())
    assert re.search(r"## iteration 1 of 1 \\u00b7 score \\u00b7 shard [12] of 2\W", live)

    (tmp_path / "judge.py").write_text(PARTS)
    evaluation = {"group_by": "kind", "every": 2}
    going_on = {
        **CONFIG,
        "prompts": {**CONFIG["prompts"], "shards": 1},
        "iterations": 3,
        "evaluation": evaluation,
        "start_from": f"WindFlow/{first.run.id}",
    }
    result = run_flow(FLOW, config=going_on)
    assert "iteration 4 of 4: 1 of 1 shards done, 32 responses, " in result.stdout
    assert_history(result)
    command(FLOW, "card", "get", f"{result.run.id}/end", "report.html")
    assert_report(card_content((tmp_path / "report.html").read_text()), result.run.id)
    command("-c", "from components.cli import main; main()", "samples", f"WindFlow/{result.run.id}", "samples.html")
    assert_samples(data_of((tmp_path / "samples.html").read_text("utf-8")), result.run.data.history["reward_mean"])


def assert_history(result):
    """Columns of parts and groups where the policy was evaluated, and the tables that are printed of them."""
    history = result.run.data.history
    assert history["iteration"].tolist() == [1, 2, 3, 4]
    for column in ("part_words", "part_words_reference", "part_ends_even[lone]", "win_rate[second]", "held_out[first]"):
        assert np.isfinite(history[column].to_numpy()).tolist() == [False, False, True, True], column
    for column in ("win_rate", "win_rate_previous", "kl", "reward_mean", "response_length", "truncated", "kl_token"):
        assert np.isfinite(history[column].to_numpy()).tolist() == [True, False, True, True], column
    assert np.isfinite(history["seconds_train"]).all()
    assert re.search(r"^.*\b2( +-){3}", result.stdout, re.MULTILINE)
    # The score is the number of words, which both runs know.
    assert history["part_words"].iloc[2] == pytest.approx(history["reward_mean"].iloc[2])
    assert history["part_words_reference"].iloc[2] == pytest.approx(result.run.data.reward_reference)
    assert history["part_words_low[lone]"].isna().all()
    assert history[[f"held_out[{kind}]" for kind in ("first", "second", "lone")]].iloc[2].tolist() == [1, 2, 1]
    assert "part       group           prompts" in result.stdout
    assert "ends_even  (95% interval)" in result.stdout


def assert_report(report, run):
    """The samples of the last iteration, in a frame: 8 prompts of 4 responses, 4 with an answer of each policy."""
    assert "## Parts and groups" in report
    assert report.count("data:image/png;base64,") == 3
    assert f"Every sample: `wind samples WindFlow/{run}`" in report
    sources = re.findall(r'"source": ("(?:[^"\\]|\\.)*")', report)
    (frame,) = [text for source in sources if "<iframe" in (text := json.loads(source))]
    inside = data_of(html.unescape(frame.partition('srcdoc="')[2].partition('"')[0]))
    assert [(batch["iteration"], len(batch["texts"])) for batch in inside["trained"]["batches"]] == [(4, 32)]
    assert [batch["iteration"] for batch in inside["held_out"]["batches"]] == [0, 4]


def data_of(page):
    """What a page of samples shows."""
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def assert_samples(shown, reward):
    """All samples of the second run, and answers of all policies."""
    assert [batch["iteration"] for batch in shown["trained"]["batches"]] == [2, 3, 4]  # those of this run
    for batch in shown["trained"]["batches"]:
        assert (len(batch["texts"]), batch["k"]) == (32, 4)
        assert batch["parts"]["words"] == batch["reward"] == [len(text.split()) for text in batch["texts"]]
    held_out = shown["held_out"]
    assert held_out["fields"] == ["kind"]
    assert [prompt["metadata"]["kind"] for prompt in held_out["prompts"]] == KINDS
    # The reference, the first run's policy and two of this run, of which the first was not evaluated.
    assert [batch["iteration"] for batch in held_out["batches"]] == [0, 1, 3, 4]
    assert [sorted(batch["parts"]) for batch in held_out["batches"]] == [[], [], *[["ends_even", "words"]] * 2]
    for batch, mean in zip(held_out["batches"][1:], reward.dropna(), strict=True):
        assert sum(batch["reward"]) / len(batch["reward"]) == pytest.approx(mean)
