"""What a run says of its own training: in the history, and on stderr where it went wrong."""

from __future__ import annotations

import logging
import math

import pytest

from components.reporting.report import verdict
from components.stages.in_process import Pipeline
from support.runs import smoke


def run(root, algorithm="wind", **training):
    """The history of the smoke preset with another judge."""
    pipeline = Pipeline(smoke(algorithm={"name": algorithm}, training=training), str(root))
    return pipeline.run(pipeline.start())


def test_training_that_learns_says_so_and_is_silent(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "components.training"):
        history = run(tmp_path, epochs=2, learning_rate=3e-3)
    assert caplog.records == []
    assert history["warnings"].tolist() == ["", ""]
    assert (history["risk_after"] < history["risk_before"]).all()
    assert history["risk_2"].equals(history["risk_after"].rename("risk_2"))
    assert (history["winners_moved"] > history["losers_moved"]).all()
    assert (history["winners_target"] > history["losers_target"]).all()
    per_token = history["kl"] / history["response_length"]
    assert history["kl_token"].tolist() == pytest.approx(per_token.tolist())
    assert list(history)[-3:] == ["warnings", "risk_1", "risk_2"]


@pytest.mark.thorough
def test_training_that_does_not_move_warns(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "components.training"):
        history = run(tmp_path, learning_rate=1e-8)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"iteration {t}: {text}" for t, text in enumerate(history["warnings"], 1)]
    assert all("training hardly moved the policy. Raise training.learning_rate (1e-08)" in text for text in said)
    assert f"Training in iteration 2 (also in 1): {history['warnings'][1]}" in verdict(history)


@pytest.mark.thorough
@pytest.mark.parametrize(("algorithm", "monitor_prompts"), [("wind", 0), ("jbond", 64)])
def test_training_that_is_not_measured(tmp_path, algorithm, monitor_prompts):
    """On-policy algorithms draw other responses at each step."""
    history = run(tmp_path, algorithm, monitor_prompts=monitor_prompts)
    assert history.loc[:, "risk_before":"kl_step_token"].isna().all(axis=None)
    assert history["warnings"].tolist() == ["", ""]
    assert all(math.isfinite(value) for value in history["kl_token"])
