"""Policies that were really trained: by judges that can be fooled, which the guards tell of, and by a sound one."""

from __future__ import annotations

import pytest

from components.evaluation.similarity import SimilarityError
from components.stages.in_process import Pipeline
from support.hackable import LONGER, REPEATED
from support.models.sentences import save_sentences
from support.runs import smoke

SORTS = "components.demo:score"
SMALL = {"numbers": 4, "batch_size": 32, "hidden_size": 32, "held_out": 128, "prompts": 512}
LARGER = {"steps": 200, "hidden_size": 64, "held_out": 128, "prompts": 2048}


def trained(judge, root, *, preset="smoke", rate, **changes):
    """The history of a small policy that learned to sort numbers, and then what the judge likes."""
    config = smoke(preset, judge={"name": "verifier", "function": judge}, **changes)
    training = config.training.model_copy(update={"learning_rate": rate, "batch_size": 16, "micro_batch_size": 16})
    pipeline = Pipeline(config.model_copy(update={"training": training}), str(root / "store"))
    return pipeline.run(pipeline.start())


def small(judge, root, *, steps, **more):
    """Three iterations with few prompts."""
    return trained(
        judge,
        root,
        demo=SMALL | {"steps": steps},
        prompts={"held_out": 128, "per_iteration": 96, "shards": 1},
        generation={"max_new_tokens": 16, "responses": 6},
        algorithm={"name": "wind", "eta": 10.0, "beta": 0.02},
        iterations=3,
        **more,
    )


@pytest.mark.slow
def test_a_policy_that_learned_to_be_long(tmp_path):
    """It wins, and at equal length it does not."""
    last = small(LONGER, tmp_path, steps=120, rate=6e-3).iloc[-1]
    assert last["win_rate_low"] > 0.6
    assert last["win_rate_lc_low"] < 0.5
    for hint in ("times as many as the reference's.", "The length limit cuts off", "Length wins: the win rate of"):
        assert hint in last["text_warnings"]
    assert last["response_length"] > 1.5 * last["response_length_reference"]


@pytest.mark.slow
@pytest.mark.thorough
def test_a_policy_that_learned_to_repeat_itself(tmp_path):
    last = trained(
        REPEATED,
        tmp_path,
        preset="demo",
        rate=1e-3,
        demo=LARGER,
        prompts={"held_out": 128, "per_iteration": 256, "shards": 1},
        generation={"max_new_tokens": 24},
        iterations=4,
    ).iloc[-1]
    assert last["win_rate_low"] > 0.8
    assert last["win_rate_lc_low"] > 0.8  # length is not what wins
    for hint in ("Responses repeat their words: distinct-1", "Responses to different prompts are alike"):
        assert hint in last["text_warnings"]
    assert last["distinct_1"] < 0.75 * last["distinct_1_reference"]


@pytest.mark.slow
def test_a_policy_that_learned_what_it_should(tmp_path):
    history = small(SORTS, tmp_path, steps=700, rate=2e-3)
    assert history["text_warnings"].tolist() == ["", "", ""]
    assert history["win_rate_lc"].sub(history["win_rate"]).abs().max() < 0.05


def test_a_run_measures_similarity(tmp_path):
    config = smoke(evaluation={"similarity": {"model": str(save_sentences(tmp_path / "model"))}}, iterations=1)
    pipeline = Pipeline(config, str(tmp_path / "store"))
    row = pipeline.run(pipeline.start()).iloc[0]
    assert -1 <= row["similarity"] <= 1
    assert -1 <= row["similarity_reference"] <= 1
    assert row["similarity"] != row["similarity_reference"]


def test_a_model_that_is_not_there_stops_the_run_in_start(tmp_path):
    config = smoke(evaluation={"similarity": {"model": str(tmp_path / "none")}})
    with pytest.raises(SimilarityError, match=r"^evaluation\.similarity\.model: there is no directory"):
        Pipeline(config, str(tmp_path / "store")).start()
