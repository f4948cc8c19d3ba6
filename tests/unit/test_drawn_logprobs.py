"""Log-probs that drawing in fp32 has shown: those of a plain forward of the whole row, to 1e-5."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.data import rollouts
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.policy import logprobs
from components.stages.sampling import generate
from support.models.policies import prompt
from support.runs import smoke
from support.sampling import seeds_of
from support.stages import iterations, start

MIXED = [[7, 8, 9], [10], [11, 12, 13, 14, 15, 16], [17, 18, 19], [20, 21, 22, 23, 24]]
K = 6


def drawn(policy, sampling, prompts=MIXED, **engine):
    return TransformersEngine(**engine).sample(policy, prompts, seeds_of(prompts, K), sampling)


def plain(model, prompts, tokens, temperature=1.0):
    """log softmax of each token's logits, (total,), float64: one row at a time, without cache or padding."""
    found = []
    for i in range(len(tokens)):
        before, row = prompts[i // K], tokens[i].tolist()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*before, *row]])).logits[0, len(before) - 1 : -1].double()
        found.append((logits / temperature).log_softmax(-1)[range(len(row)), row].numpy())
    return np.concatenate(found)


def test_of_each_architecture(model, make_policy):
    """Rows that end leave the batch, prompts are padded, caches grow and slide."""
    samples = drawn(make_policy(model), Sampling(40), batch_size=24)
    assert len(set(samples.tokens.lengths)) > 5
    assert samples.token_logp.dtype == np.float32
    np.testing.assert_allclose(samples.token_logp, plain(model, MIXED, samples.tokens), rtol=0, atol=1e-5)


def test_of_a_model_in_fp64(make_model, make_policy):
    samples = drawn(make_policy(make_model("llama").double()), Sampling(4))
    assert samples.token_logp.dtype == np.float32


def test_at_a_temperature(make_policy):
    policy = replace(make_policy(), temperature=0.5)
    samples = drawn(policy, Sampling(12, temperature=0.5))
    expected = plain(policy.model, MIXED, samples.tokens, temperature=0.5)
    np.testing.assert_allclose(samples.token_logp, expected, rtol=0, atol=1e-5)


def test_up_to_a_stop_string(make_policy):
    """Words that stop are not known before they are drawn: the row is cut, and its figures with it."""
    policy = make_policy()
    whole = drawn(policy, Sampling(30))
    word = policy.decode([[whole.tokens[0][3]]])[0].strip()
    cut = drawn(policy, Sampling(30, stop=(word,)))
    assert cut.tokens.lengths.sum() < whole.tokens.lengths.sum()
    np.testing.assert_allclose(cut.token_logp, plain(policy.model, MIXED, cut.tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "other", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.7}], ids=lambda other: next(iter(other))
)
def test_none_where_another_distribution_is_drawn_from(make_policy, other):
    assert drawn(make_policy(), Sampling(4, **other)).token_logp is None


def test_none_in_bf16(make_policy):
    """A token's forward and a row's round differently there, by far more than 1e-5."""
    assert drawn(make_policy(precision="bf16"), Sampling(4)).token_logp is None


def test_a_file_keeps_them(make_policy, tmp_path):
    asked = [prompt("w7 w8", id="a"), prompt("w9", id="b")]
    given = {"responses": K, "sampling": Sampling(9), "seed": 0, "purpose": "train", "iteration": 1}
    policy = replace(make_policy(), prompt_format="{prompt}")
    rollout = generate(policy, TransformersEngine(), asked, **given)
    again = rollouts.load_rollout(rollouts.save_rollout(rollout, tmp_path / "rollout.parquet"))
    np.testing.assert_array_equal(again.token_logp, rollout.token_logp)
    assert len(again.token_logp) == len(again.tokens.values)


@pytest.fixture(params=["wind", "grpo"])  # one that wants sums, one that wants tokens
def passes(request, tmp_path, monkeypatch):
    """Two iterations of a run, and how many passes over responses each of its stages made."""
    counted = []
    for name in ("score_responses", "score_tokens"):
        made = getattr(logprobs, name)
        monkeypatch.setattr(logprobs, name, lambda *a, made=made, **k: counted.append(1) or made(*a, **k))
    config = smoke(algorithm={"name": request.param}, training={"learning_rate": 1e-2}, prompts={"shards": 1})
    run = start(config, str(tmp_path / "store"))
    found = []
    for _ in iterations(run):
        found.append(len(counted))
        counted.clear()
    return found


def test_a_stage_makes_no_pass_for_what_is_known(passes):
    """Of the reference alone: in the first iteration's `evaluate`, then in `score` as well."""
    assert passes == [1, 2]
