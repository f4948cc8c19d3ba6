"""The whole loop in one process, without Metaflow: what each stage hands on, and that it depends on nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components import stages
from components.data import rollouts
from components.stages import sampling
from components.stages.context import open_workspace
from components.store import open_store
from components.training import learning
from support.runs import smoke, total
from support.stages import iterations, start

N, K, M, T = 16, 4, 2, 2  # prompts and responses of an iteration, responses of an evaluation, iterations


def quick(**changes):
    """A learning rate that shows after four steps."""
    return smoke(**{"training": {"learning_rate": 1e-2}, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = start(quick(), str(tmp_path_factory.mktemp("run") / "store"))
    run.iterations.extend(iterations(run))
    return run


def test_start_keeps_policy_prompts_and_the_references_responses(run):
    started = run.started
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= started.policy.keys()
    assert started.prompts.keys() == {"train.jsonl", "evaluation.jsonl"}
    assert started.evaluated.keys() == {"rollout.parquet"}
    assert started.precision in {"fp32", "bf16"}
    responses = run.rollout(started.evaluated)
    assert responses.shape == (16, M)
    with run.work("start") as work:
        held_out = work.prompts(started.prompts, "evaluation")
        judgement = sampling.judge(run.config.judge, held_out, [responses])
    assert started.reward == pytest.approx(judgement.reward.mean())


def test_plan_deals_out_the_iterations_prompts(run):
    ids = []
    for iteration in run.iterations:
        assert [shard.keys() for shard in iteration.shards] == [{"shard.jsonl"}] * 2
        with run.work("plan") as work:
            shards = [work.prompts(shard, "shard") for shard in iteration.shards]
        assert [len(shard) for shard in shards] == [8, 8]
        ids.append({prompt.id for shard in shards for prompt in shard})
        rolled = [prompt_id for manifest in iteration.scored for prompt_id in run.rollout(manifest).prompt_ids]
        assert rolled == [prompt.id for shard in shards for prompt in shard]
    # 64 training prompts: two iterations of 16 share none.
    assert len(ids[0] | ids[1]) == 2 * N


def test_scores_of_the_first_iteration_know_one_policy(run):
    first, second = (
        [rollouts.load_scored(fetched(run, manifest)) for manifest in iteration.scored] for iteration in run.iterations
    )
    for shard in first:
        assert shard.rollout.shape == (N // 2, K)
        np.testing.assert_array_equal(shard.logp_ref, shard.logp_old)
        assert (shard.logp_old < 0).all()
        # Only a verifier's score decides: equal ones tie, and the diagonal does.
        margin = shard.reward[:, :, None] - shard.reward[:, None, :]
        np.testing.assert_array_equal(shard.preference, (np.sign(margin) + 1) / 2)
    for shard in second:
        assert np.abs(shard.logp_ref - shard.logp_old).max() > 1e-3


def fetched(run, manifest):
    """The stored file itself, which is only read."""
    (entry,) = manifest.values()
    return next(Path(run.root).rglob(entry["sha256"]))


def test_log_probs_are_of_the_policy_that_drew_the_responses(run):
    """By the model's own logits, one row at a time."""
    policy = run.iterations[0].trained.policy
    scored = rollouts.load_scored(fetched(run, run.iterations[1].scored[0]))
    with run.work("score") as work, torch.no_grad():
        model = work.policy(policy).model
        for row in range(2 * K):
            prompt, response = scored.rollout.prompt_tokens[row // K], scored.rollout.tokens[row]
            logp = model(torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
            expected = sum(logp[len(prompt) + i - 1, token].item() for i, token in enumerate(response))
            assert scored.logp_old[row // K, row % K] == pytest.approx(expected, abs=1e-4)


def test_gather_counts_what_came_back(run):
    for iteration in run.iterations:
        tokens = sum(len(run.rollout(manifest).tokens.values) for manifest in iteration.generated)
        assert iteration.counts == {"prompts": N, "responses": N * K, "tokens_generated": tokens}


@pytest.mark.parametrize("kept", [[0], [0, 0], [1, 0]])
def test_gather_refuses_shards_that_are_missing_repeated_or_swapped(run, kept):
    first = run.iterations[0]
    with run.work("gather") as work, pytest.raises(ValueError, match="not the 16 planned ones; missing: "):
        stages.gather(work, first.shards, [first.scored[i] for i in kept])


def test_train_gives_a_new_policy_with_the_same_tokenizer(run):
    manifests = [run.started.policy, *(iteration.trained.policy for iteration in run.iterations)]
    weights = [manifest.pop("model.safetensors")["sha256"] for manifest in map(dict, manifests)]
    assert len(set(weights)) == T + 1
    for manifest in manifests[1:]:
        assert manifest.keys() == manifests[0].keys()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            assert manifest[name] == manifests[0][name]
    for iteration in run.iterations:
        assert iteration.trained.optimizer.keys() == {"optimizer.safetensors"}
        assert iteration.trained.counts == {"micro_batch_size": 4}
        assert iteration.trained.figures.keys() == {
            "loss",
            "grad_norm",
            "logp_change",
            "tied",
            *learning.COLUMNS,
        }
        assert np.isfinite([*iteration.trained.figures.values()]).all()


def test_train_goes_on_with_optimiser_and_schedule(run):
    """Two steps an iteration; without the optimiser's state, or as another iteration, it would end elsewhere."""
    first, second = run.iterations
    for iteration, steps in ((first, 2), (second, 4)):
        assert load_file(fetched(run, iteration.trained.optimizer))["step.model.norm.weight"].item() == steps
    policy, optimizer = first.trained.policy, first.trained.optimizer
    with run.work("train") as work:
        reset = stages.train(work, stages.TrainInput(policy, None, second.shards, second.scored, 2))
    with run.work("train") as work:
        misplaced = stages.train(work, stages.TrainInput(policy, optimizer, second.shards, second.scored, 1))
    with run.work("train") as work:
        again = stages.train(work, stages.TrainInput(policy, optimizer, second.shards, second.scored, 2))
    assert again == second.trained
    assert len({trained.policy["model.safetensors"]["sha256"] for trained in (again, reset, misplaced)}) == 3


def test_evaluate_compares_with_reference_and_previous(run):
    first, second = (iteration.evaluated for iteration in run.iterations)
    assert first.against_previous == first.against_reference
    assert second.against_previous.mean != second.against_reference.mean
    with run.work("evaluate") as work:
        held_out = work.prompts(run.started.prompts, "evaluation")
    rolled = [run.rollout(manifest) for manifest in (second.rollout, run.started.evaluated, first.rollout)]
    ours, reference, previous = (
        [[total(text, prompt) for text in rollout.group(i)] for i, prompt in enumerate(held_out)] for rollout in rolled
    )
    responses = rolled[0]

    def share(theirs):
        """Of all pairs of our and their responses to a prompt, those that we win; a tie is half a win."""
        wins = [(a > b) + 0.5 * (a == b) for x, y in zip(ours, theirs, strict=True) for a in x for b in y]
        return np.mean(wins)

    assert second.against_reference.mean == pytest.approx(share(reference))
    assert second.against_previous.mean == pytest.approx(share(previous))
    assert second.reward == pytest.approx(np.mean(ours))
    assert second.response_length == pytest.approx(len(responses.tokens.values) / (16 * M))
    last_tokens = [responses.tokens[row][-1] for row in range(16 * M)]
    assert second.truncated == pytest.approx(np.mean([token != 1 for token in last_tokens]))  # 1 is the demo's EOS


def test_evaluate_again_gives_the_same(run):
    """And a policy compared with itself, log-prob for log-prob, has a KL of zero."""
    last = run.iterations[-1]
    started, policy = run.started, last.trained.policy
    rivals = started.evaluated, run.iterations[0].evaluated.rollout
    with run.work("evaluate") as work:
        again = stages.evaluate(work, stages.EvaluateInput(policy, started.policy, started.prompts, *rivals, T))
        assert again == last.evaluated
        own = stages.evaluate(work, stages.EvaluateInput(policy, policy, started.prompts, *rivals, T))
    assert own == replace(last.evaluated, kl=0.0)
    assert last.evaluated.kl != 0.0


def test_examples_show_both_policies(run):
    with run.work("end") as work:
        shown = stages.examples(work, run.started.prompts, run.started.evaluated, run.iterations[-1].evaluated.rollout)
        held_out = work.prompts(run.started.prompts, "evaluation")
    reference, final = run.rollout(run.started.evaluated), run.rollout(run.iterations[-1].evaluated.rollout)
    assert len(shown) == run.config.evaluation.examples == 8
    for i, example in enumerate(shown):
        assert (example["prompt"], example["answer"]) == (held_out[i].text, held_out[i].answer)
        assert (example["reference_response"], example["final_response"]) == (reference.group(i)[0], final.group(i)[0])


def test_second_run_is_identical_bit_for_bit(run, tmp_path):
    """In a store of its own, with nothing left of the first."""
    second = start(run.config, str(tmp_path / "store"))
    assert second.started == run.started
    second.iterations.extend(iterations(second))
    for ours, theirs in zip(second.iterations, run.iterations, strict=True):
        assert (ours.shards, ours.scored) == (theirs.shards, theirs.scored)
        assert ours.trained == theirs.trained
        assert ours.evaluated == theirs.evaluated


def test_responses_are_new_in_each_iteration(run):
    """To the same prompts, from the same policy."""
    shard, drawn = run.iterations[0].shards[0], run.iterations[0].generated[0]
    with run.work("generate") as work:
        again, later = (stages.generate(work, run.started.policy, shard, iteration) for iteration in (1, 2))
    assert again == drawn
    rows = [by_prompt(run.rollout(manifest)) for manifest in (drawn, later)]
    assert not any(rows[0][name] == rows[1][name] for name in rows[0])


def test_one_shard_or_two_draw_the_same_responses(run):
    with open_workspace(quick(prompts={"shards": 1}), run.root, "generate", precision=run.started.precision) as work:
        (shard,) = stages.plan(work, run.started.prompts, 1)
        whole = work.rollout(stages.generate(work, run.started.policy, shard, 1))
    assert whole.shape == (N, K)
    halves = [by_prompt(run.rollout(manifest)) for manifest in run.iterations[0].generated]
    assert by_prompt(whole) == halves[0] | halves[1]


def by_prompt(rollout):
    """Token ids of each prompt's responses."""
    return {name: [rollout.tokens[i * K + k].tolist() for k in range(K)] for i, name in enumerate(rollout.prompt_ids)}


def test_weights_that_diverge_in_the_last_step_are_not_stored(run, tmp_path):
    """One step of size 1e39 from finite losses and gradients: fp32 ends at 3.4e38. Nothing else looks at the result."""
    training = {"batch_size": N, "learning_rate": 1e39, "warmup_ratio": 0.0, "monitor_prompts": 0}
    config, first = smoke(training=training, iterations=1), run.iterations[0]
    store = open_store(run.root)
    stored = {blob.sha256 for blob in store.blobs()}
    message = r"is not finite after the last step: training diverged\. Lower training\.learning_rate"
    with (
        open_workspace(config, run.root, "train") as work,
        pytest.raises(FloatingPointError, match=message),
    ):
        stages.train(work, stages.TrainInput(run.started.policy, None, first.shards, first.scored, 1))
    assert {blob.sha256 for blob in store.blobs()} == stored
