"""The comparison on a real model, with a tiny one in its place: arms are run, written down, and not run twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.models.families import FAMILIES, save_policy

pytestmark = pytest.mark.thorough

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = {
    "training": {"learning_rate": 1e-3, "epochs": 1, "batch_size": 4, "micro_batch_size": 4},
    "temperature": 0.2,
    "prompts": 8,
    "max_new_tokens": 6,
    "iterations": 1,
    "evaluated": 1,
}
ARMS = [
    {"name": "wind", "algorithm": {"name": "wind"}, "responses": 4, **SMALL},
    {"name": "jbond", "algorithm": {"name": "jbond"}, "responses": 3, **SMALL},
]


def called(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(("script", "headline"), [("real_model.py", "met"), ("styles.py", "exploited")])
def test_arms_are_run_once(tmp_path, script, headline):
    folder = save_policy(FAMILIES["llama3"], tmp_path / "model")
    arms = ARMS if script == "real_model.py" else ARMS[:1]
    (tmp_path / "arms.jsonl").write_text("\n".join(map(json.dumps, arms)))
    files = folder, tmp_path / "arms.jsonl", tmp_path / "results.jsonl"
    said = called(script, *files)
    rows = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert [row["arm"]["name"] for row in rows] == [arm["name"] for arm in arms]
    for row in rows:
        [iteration] = row["iterations"]
        assert iteration["steps"] == 8 / 4
        assert iteration["grad_norm"] > 0
        assert row["kl_to_reference"] != 0
        assert 0 <= row[headline] <= 1
        assert f"{row['arm']['name']} seed 0: {row[headline]}, " in said
    assert called(script, *files) == ""
