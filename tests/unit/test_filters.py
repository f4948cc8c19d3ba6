"""min_p, top_k and top_p: which tokens are drawn, how often, and that log-probs stay those of all."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from components.data.records import Ragged
from components.generation import Sampling
from components.generation._sampler import draw
from components.generation.transformers import TransformersEngine
from components.policy.logprobs import score_responses
from components.run_config import RunConfig, parse
from support.models.tiny import make_policy

GRID = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000


def shares(probabilities, **settings):
    """How often each token is drawn, by a thousand numbers spread evenly over [0, 1)."""
    logits = torch.tensor(probabilities).log().expand(len(GRID), -1)
    return (np.bincount(draw(logits, GRID, Sampling(1, **settings))[0], minlength=len(probabilities)) / 1000).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 3}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_k": 4}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.3]),
        ({"min_p": 0.45}, [0, 4 / 9, 2 / 9, 3 / 9]),  # at least 0.18
        ({"min_p": 0.55}, [0, 4 / 7, 0, 3 / 7]),  # 0.22
        ({"min_p": 0.8}, [0, 1, 0, 0]),  # 0.32
        ({"top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.5, "top_k": 2}, [0, 1, 0, 0]),  # of what top_k keeps, the first token has 4/7
        ({"top_p": 0.75, "min_p": 0.45}, [0, 4 / 7, 0, 3 / 7]),  # of what min_p keeps, two have 7/9
        ({"top_k": 3, "min_p": 0.55}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 2, "min_p": 0.45}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 0.5, "min_p": 0.3}, [0, 16 / 25, 0, 9 / 25]),  # squares: 1, 16, 4, 9 of 30; at least 4.8
        ({"temperature": 0.5, "top_k": 3}, [0, 16 / 29, 4 / 29, 9 / 29]),
    ],
)
def test_what_is_drawn(settings, expected):
    assert shares([0.1, 0.4, 0.2, 0.3], **settings) == pytest.approx(expected, abs=1.5e-3)


def test_tokens_that_tie_at_the_edge_all_stay():
    assert shares([0.4, 0.2, 0.2, 0.2], top_k=2) == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=1.5e-3)


def test_tokens_of_no_probability_are_not_drawn_however_many_top_k_takes():
    assert shares([0.5, 0.0, 0.5, 0.0], top_k=3) == [0.5, 0, 0.5, 0]


def test_logits_that_are_not_finite_are_an_error():
    for settings in ({"top_k": 2}, {"min_p": 0.5}, {"top_k": 2, "min_p": 0.5, "top_p": 0.5}):
        with pytest.raises(FloatingPointError, match="not finite"):
            draw(torch.full((2, 4), torch.nan), GRID[:2], Sampling(1, **settings))


def test_log_probs_are_of_the_whole_distribution():
    policy, prompt = make_policy(), [4, 5, 6]
    sampling = Sampling(1, top_k=3, min_p=0.1, top_p=0.9)
    drawn = TransformersEngine().sample(policy, [prompt], np.arange(200, dtype=np.uint64)[None], sampling)
    with torch.no_grad():
        exact = policy.model(input_ids=torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1).numpy()
    tokens = drawn.tokens.values
    assert set(tokens) <= set(np.argsort(-exact)[:3])
    assert score_responses(policy, Ragged.of([prompt]), drawn.tokens)[0] == pytest.approx(exact[tokens], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ("{}", []),
        ("{top_p: 1.0, min_p: 0.0}", []),
        ("{top_p: 0.9}", ["top_p"]),
        ("{top_k: 5}", ["top_k"]),
        ("{top_k: 5, min_p: 0.1, top_p: 0.5}", ["top_p", "top_k", "min_p"]),
    ],
)
def test_start_tells_what_leaves_tokens_out(settings, names, tmp_path, caplog):
    from components.stages.context import open_workspace
    from components.stages.preparation import _base_policy

    policy = make_policy()
    policy.model.save_pretrained(tmp_path / "policy")
    policy.tokenizer.save_pretrained(tmp_path / "policy")
    text = "policy: {model: m}\nprompts: {train: p}\njudge: {name: verifier, function: 'a:b'}\n"
    config = RunConfig.model_validate(parse(f"{text}generation: {settings}"))
    with open_workspace(config, str(tmp_path / "store"), "start") as work, caplog.at_level(logging.WARNING):
        _base_policy(work, tmp_path / "policy")
    told = [record.getMessage() for record in caplog.records if "`kl` is no KL divergence" in record.getMessage()]
    assert len(told) == bool(names)
    assert all(f"generation.{name}" in line for line in told for name in names)
