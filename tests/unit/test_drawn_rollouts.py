"""Rollouts as they are drawn: each prompt has its responses, whichever prompts it is among."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.records import Prompt, Ragged, Rollout
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.judges.verifier import Verifier
from components.stages import sampling
from support.models.tiny import make_policy, make_prompts


@pytest.fixture(scope="module")
def policy():
    return make_policy()


def sample(policy, prompts, **changed):
    run = {"responses": 3, "sampling": Sampling(12), "seed": 0, "purpose": "train", "iteration": 1, **changed}
    return sampling.generate(policy, TransformersEngine(), prompts, **run)


def token_rows(rollout):
    k = rollout.shape[1]
    return {p: [rollout.tokens[i * k + j].tolist() for j in range(k)] for i, p in enumerate(rollout.prompt_ids)}


def test_generate_gives_each_prompt_its_responses(policy):
    prompts = make_prompts(5)
    rollout = sample(policy, prompts)
    assert rollout.prompt_ids == [p.id for p in prompts]
    assert rollout.shape == (5, 3)
    assert [row.tolist() for row in map(rollout.prompt_tokens.__getitem__, range(5))] == [
        policy.encode(p) for p in prompts
    ]
    assert len(rollout.texts) == len(rollout.tokens) == 15
    for row, text in enumerate(rollout.texts):
        tokens = rollout.tokens[row].tolist()
        assert text == policy.tokenizer.decode(tokens, skip_special_tokens=True)
        assert rollout.finished.reshape(-1)[row] == (tokens[-1] in policy.eos_ids)
        assert rollout.finished.reshape(-1)[row] or len(tokens) == 12


def test_responses_do_not_depend_on_the_other_prompts(policy):
    prompts = make_prompts(5)
    together = token_rows(sample(policy, prompts))
    alone = {name: rows for p in prompts for name, rows in token_rows(sample(policy, [p])).items()}
    assert alone == together
    assert token_rows(sample(policy, prompts[::-1])) == together


def test_responses_do_not_depend_on_how_many_there_are(policy):
    prompts = make_prompts(2)
    more = token_rows(sample(policy, prompts, responses=5))
    assert token_rows(sample(policy, prompts)) == {name: rows[:3] for name, rows in more.items()}


def test_seeds_differ_by_all_that_they_are_made_of(policy):
    """The same text throughout: what differs is the run, the purpose, the iteration, the prompt's id or k."""
    twins = [Prompt(name, make_prompts(4)[3].messages) for name in ("one", "two")]
    variants = [{}, {"seed": 1}, {"purpose": "evaluate"}, {"iteration": 2}]
    drawn = [tuple(row) for v in variants for rows in token_rows(sample(policy, twins, **v)).values() for row in rows]
    assert len(set(drawn)) == len(drawn) == 4 * 2 * 3


def test_judge_sees_all_rollouts_of_a_prompt_in_order():
    """Scores are the first digit of the text: prompt one has 3, 1 and then 2, 2; prompt two 0, 0 and 9, 5."""
    rows = [["3", "1", "0", "0"], ["2", "2", "9", "5"]]
    token = Ragged.of([[1], [1]])
    pair = [Rollout(["one", "two"], token, Ragged.of([[1]] * 4), texts, np.ones((2, 2), bool)) for texts in rows]
    judgement = sampling.judge(Verifier(function=f"{__name__}:number"), make_prompts(2), pair)
    assert judgement.reward.tolist() == [[3, 1, 2, 2], [0, 0, 9, 5]]
    assert judgement.preference[0].tolist() == [
        [0.5, 1, 1, 1],
        [0, 0.5, 0, 0],
        [0, 1, 0.5, 0.5],
        [0, 1, 0.5, 0.5],
    ]


def number(response, prompt):
    return float(response)
