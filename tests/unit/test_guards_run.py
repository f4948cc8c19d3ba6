"""Policies that were really trained: by judges that can be fooled, which the guards tell of, and by a sound one."""

from __future__ import annotations

import pytest

from components.evaluation.similarity import SimilarityError
from components.stages.in_process import Pipeline
from support.hackable import LONGER, REPEATED
from support.models.sentences import save_sentences
from support.runs import smoke

SORTS = "components.demo:score"
SMALL = {"numbers": 4, "steps": 120, "batch_size": 32, "hidden_size": 32, "held_out": 128, "prompts": 512}


def trained(judge, root, *, iterations, rate, demo=SMALL, per_iteration=96, limit=16):
    """The history of a small policy that learned to sort numbers, and then what the judge likes."""
    config = smoke(
        "demo",
        demo=demo,
        prompts={"held_out": 128, "per_iteration": per_iteration, "shards": 1},
        generation={"max_new_tokens": limit},
        judge={"name": "verifier", "function": judge},
        training={"learning_rate": rate},
        iterations=iterations,
    )
    pipeline = Pipeline(config, str(root / "store"))
    return pipeline.run(pipeline.start())


@pytest.mark.slow
def test_a_policy_that_learned_to_be_long(tmp_path):
    """It wins, and at equal length it does not."""
    last = trained(LONGER, tmp_path, iterations=3, rate=6e-3).iloc[-1]
    assert last["win_rate_low"] > 0.6
    assert last["win_rate_lc_low"] < 0.5
    for hint in ("times as many as the reference's.", "The length limit cuts off", "Length wins: the win rate of"):
        assert hint in last["text_warnings"]
    assert last["response_length"] > 1.5 * last["response_length_reference"]


@pytest.mark.slow
@pytest.mark.thorough
def test_a_policy_that_learned_to_repeat_itself(tmp_path):
    demo = {"numbers": 8, "steps": 200, "hidden_size": 64, "held_out": 128, "prompts": 2048}
    settings = {"iterations": 4, "rate": 1e-3, "demo": demo, "per_iteration": 256, "limit": 24}
    last = trained(REPEATED, tmp_path, **settings).iloc[-1]
    assert last["win_rate_low"] > 0.8
    assert last["win_rate_lc_low"] > 0.8  # length is not what wins
    for hint in ("Responses repeat their words: distinct-1", "Responses to different prompts are alike"):
        assert hint in last["text_warnings"]
    assert last["distinct_1"] < 0.75 * last["distinct_1_reference"]


@pytest.mark.slow
def test_a_policy_that_learned_what_it_should(tmp_path):
    history = trained(SORTS, tmp_path, iterations=2, rate=1e-3, demo=SMALL | {"steps": 400})
    assert history["text_warnings"].tolist() == ["", ""]
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
