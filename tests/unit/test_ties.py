"""Prompts whose responses all tie: counted by hand, and told of in `start`, in `train`, in the history and the card."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from components.config.sections import GenerationConfig
from components.judges import Judgement, preference_from_scores
from components.reporting.cards import report_card
from components.reporting.report import LEARNING_HEADERS, learning_headers, learning_rows, verdict
from components.stages.in_process import Pipeline
from components.training.ties import at_start, in_training, share
from support.runs import smoke, total

ALGORITHMS = ["wind", "dpo", "ipo", "sppo", "bond", "grpo", "rloo", "jbond"]


def constant(response, prompt):
    return 1


def by_prompt(response, prompt):
    """Tells responses apart for every fourth prompt or so."""
    return total(response, prompt) if sum(map(ord, prompt.text)) % 4 == 0 else 0


def scores(*rows):
    return preference_from_scores(np.array(rows, dtype=np.float64))


def test_share_by_hand():
    assert share(scores([1, 1, 1], [0, 0, 1], [2, 2, 2], [0, 1, 2])) == 0.5
    assert share(scores([1, 2], [1, 1], [0, 0], [3, 3])) == 0.75
    # A cycle: each response beats one and loses to one, so none is better than another.
    cycle = np.array([[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]])
    assert share(cycle) == 1.0
    rounded = np.full((1, 3, 3), 0.5)
    rounded[0, 0, 1], rounded[0, 1, 0] = 0.5 + 1e-16, 0.5 - 1e-16
    assert share(rounded) == 1.0
    rounded[0, 0, 1], rounded[0, 1, 0] = 0.5 + 1e-6, 0.5 - 1e-6
    assert share(rounded) == 0.0


def judgement(*rows):
    return Judgement(scores(*rows), np.array(rows, dtype=np.float64))


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        (judgement([0, 0], [1, 1]), "judge: all 2 responses of the reference to every held-out prompt tie. If those"),
        (
            judgement(*[[0, 0]] * 19, [0, 1]),
            "judge: all 2 responses of the reference to 95% of the held-out prompts tie. If those that training draws",
        ),
        (judgement([2], [2]), "judge: every response of the reference to the held-out prompts scores 2. If those"),
    ],
)
def test_what_start_says(said, begins):
    assert at_start(said).startswith(begins)
    assert at_start(said).endswith("let it give finer scores, or take easier or harder prompts.")


@pytest.mark.parametrize(
    "said",
    [
        judgement(*[[0, 0]] * 9, [0, 1]),  # nine in ten
        judgement([1], [2]),
        judgement([1]),  # one response says nothing of others
        Judgement(np.full((2, 1, 1), 0.5), np.full((2, 1), np.nan)),  # nor does one that was compared with none
    ],
)
def test_when_start_says_nothing(said):
    assert at_start(said) == ""


NO_STEP, REST = "training made no step and left the policy as it was", "there was no preference to learn in them"
REMEDY = (
    "Let the judge give finer scores, take easier or harder prompts, raise generation.responses (8), "
    "or raise generation.temperature (1)."
)


@pytest.mark.parametrize(
    ("tied", "options", "said"),
    [
        (1.0, {"steps": False}, f"All responses to every prompt tie: {NO_STEP}. {REMEDY}"),
        (1.0, {"steps": True}, f"All responses to every prompt tie: training had no preference to learn. {REMEDY}"),
        (0.75, {"steps": True}, f"All responses to 75% of the prompts tie: {REST}. {REMEDY}"),
        (0.997, {"steps": True}, f"All responses to 99% of the prompts tie: {REST}. {REMEDY}"),
        (
            1.0,
            {"steps": True, "fresh": True},
            "All responses to every prompt tie: training had no preference to learn. Let the judge give finer scores, "
            "take easier or harder prompts, or raise generation.temperature (1).",
        ),
        (0.5, {"steps": True}, ""),
        (0.0, {"steps": True}, ""),
        (float("nan"), {"steps": True}, ""),
    ],
)  # fmt: skip
def test_what_training_says(tied, options, said):
    assert in_training(tied, GenerationConfig(), **options) == said


def config(judge, algorithm, **training):
    judge = {"function": f"{__name__}:{judge}"}
    return smoke(judge=judge, algorithm={"name": algorithm}, training=training, iterations=1)


@pytest.mark.thorough(but=["wind"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_judge_that_always_says_the_same(tmp_path, caplog, algorithm):
    pipeline = Pipeline(config("constant", algorithm), str(tmp_path))
    with caplog.at_level(logging.WARNING, "components"):
        started = pipeline.start()
        (record,) = caplog.records
        assert record.getMessage().startswith("judge: all 2 responses of the reference to every held-out prompt tie.")
        history = pipeline.run(started)
    no_step = algorithm in ("dpo", "ipo")
    result = NO_STEP if no_step else "training had no preference to learn"
    assert history["tied"].tolist() == [1.0]
    assert history["warnings"][0].startswith(f"All responses to every prompt tie: {result}. Let the judge")
    assert [record.getMessage() for record in caplog.records][1:] == [f"iteration 1: {history['warnings'][0]}"]
    assert f"Training in iteration 1: {history['warnings'][0]}" in verdict(history)
    shown = [part.render() for part in report_card(history, [], {}, title="")]
    (place,) = [i for i, part in enumerate(shown) if part.get("source", "").startswith("## Did training learn?")]
    assert shown[place + 1]["columns"] == [*LEARNING_HEADERS, "all responses tie"]
    assert shown[place + 1]["data"][0][-1] == "100.0%"
    assert "All responses to every prompt tie" in shown[place + 2]["source"]


@pytest.mark.thorough(but=["wind"])
@pytest.mark.parametrize("algorithm", ["wind", "dpo", "jbond"])
def test_most_prompts_tie(tmp_path, algorithm):
    pipeline = Pipeline(config("by_prompt", algorithm, monitor_prompts=0), str(tmp_path))
    history = pipeline.run(pipeline.start())
    assert 0.5 < history["tied"][0] < 1
    percent = int(100 * history["tied"][0])
    assert history["warnings"][0].startswith(f"All responses to {percent}% of the prompts tie: {REST}.")


def test_a_history_from_before_there_was_the_column():
    before = pd.DataFrame({"risk_before": [np.nan], "iteration": [1]})
    assert learning_headers(before) == LEARNING_HEADERS
    assert learning_rows(before) == []
