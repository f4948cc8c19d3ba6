"""The stages of a run, one function per kind of step: manifests in, manifests out.

A flow step reads its artifacts, calls one of these and keeps the result; without a flow they run just as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import evaluation, prompts, rollouts
from components.generation import Sampling
from components.records import Prompt, Rollout, Scored
from components.store import Manifest
from components.workspace import OPTIMIZER_FILE, Workspace


@dataclass(frozen=True)
class Started:
    """What `start` hands to the iterations."""

    policy: Manifest  # base policy and reference
    prompts: Manifest  # train.jsonl and evaluation.jsonl
    evaluated: Manifest  # the reference's responses to the evaluation prompts
    reward: float  # their mean score
    precision: str  # resolved: "fp32" or "bf16"


@dataclass(frozen=True)
class Trained:
    """What `train` hands on."""

    policy: Manifest
    optimizer: Manifest
    figures: dict[str, float]  # means over the iteration's optimiser steps


def start(work: Workspace) -> Started:
    """Checks everything that could fail later, stores base policy and prompts, samples the reference's responses."""
    from components import logprobs, policy

    work.use_threads()
    config = work.config
    judge = config.build_judge()
    judge.check()
    source, sources = _sources(work)
    train, held_out = _load_prompts(work, *sources)
    folder = policy.copy_files(source, work.folder / "policy", code=config.policy.trust_remote_code)
    base = policy.load(folder, config.policy)
    policy.check_lengths(
        base,
        [*train, *held_out],
        max_prompt_tokens=config.policy.max_prompt_tokens,
        max_new_tokens=config.generation.max_new_tokens,
    )
    logprobs.check_head(base)
    precision = policy.pick_precision(base, config.policy.precision)
    policy_manifest = work.store.put(folder)
    prompts_folder = work.folder / "prompts"
    prompts_folder.mkdir()
    prompts.save(train, prompts_folder / "train.jsonl")
    prompts.save(held_out, prompts_folder / "evaluation.jsonl")
    responses = _sample(work, work.policy(policy_manifest), held_out, "evaluate", 0)
    reward = rollouts.judge(judge, held_out, [responses]).reward
    return Started(
        policy=policy_manifest,
        prompts=work.store.put(prompts_folder),
        evaluated=work.keep_rollout(responses),
        reward=float(reward.mean()),
        precision=precision,
    )


def _sources(work: Workspace) -> tuple[Path, tuple[str, str | None]]:
    """Policy directory and prompt sources: the user's, or the demo's own."""
    from components import demo, policy

    config = work.config
    if config.demo is None:
        assert config.prompts.train is not None
        return policy.fetch(config.policy), (config.prompts.train, config.prompts.evaluation)
    folder = work.folder / "demo"
    folder.mkdir()
    demo.build(folder, config.demo, seed=config.seed, progress=work.progress("fine-tune the demo policy"))
    return folder / "policy", (str(folder / "train.jsonl"), str(folder / "evaluation.jsonl"))


def _load_prompts(work: Workspace, train: str, held_out: str | None) -> tuple[list[Prompt], list[Prompt]]:
    settings, seed = work.config.prompts, work.config.seed
    loaded = prompts.load(train, split=settings.split, allow_duplicates=settings.allow_duplicates)
    if held_out is None:
        trained, evaluated = prompts.split_held_out(loaded, settings.held_out, seed)
    else:
        evaluated = prompts.load(held_out, split=settings.split, allow_duplicates=settings.allow_duplicates)
        evaluated = evaluated[: settings.held_out]
        trained = loaded
    prompts.refuse_overlap(trained, evaluated)
    prompts.choose(trained, per_iteration=settings.per_iteration, iteration=1, seed=seed)
    return trained, evaluated


def plan(work: Workspace, prompts_manifest: Manifest, iteration: int) -> list[Manifest]:
    """This iteration's prompts, split into shards; each a file of its own, so that a task reads only its share."""
    settings = work.config.prompts
    train = work.prompts(prompts_manifest, "train")
    chosen = prompts.choose(train, per_iteration=settings.per_iteration, iteration=iteration, seed=work.config.seed)
    shards = prompts.into_shards(chosen, settings.shards)
    return [work.keep("shard.jsonl", partial(prompts.save, shard)) for shard in shards]


def generate(work: Workspace, policy: Manifest, shard: Manifest, iteration: int) -> Manifest:
    """K responses to each prompt of a shard."""
    chosen = work.prompts(shard, "shard")
    return work.keep_rollout(_sample(work, work.policy(policy), chosen, "train", iteration))


def _sample(work: Workspace, policy: Any, chosen: Sequence[Prompt], purpose: str, iteration: int) -> Rollout:
    settings = work.config.generation
    train = purpose == "train"
    return rollouts.generate(
        policy,
        work.config.build_engine(),
        chosen,
        responses=settings.responses if train else work.config.evaluation.responses,
        sampling=Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
        seed=work.config.seed,
        purpose=purpose,
        iteration=iteration,
        progress=work.progress("generate responses"),
    )


def score(work: Workspace, policy: Manifest, reference: Manifest, rollout: Manifest, shard: Manifest) -> Manifest:
    """Judges a shard's responses and adds their log-probs under policy and reference."""
    responses = work.rollout(rollout)
    chosen = work.prompts(shard, "shard")
    judgement = rollouts.judge(work.config.build_judge(), chosen, [responses], work.progress("judge responses"))
    logp_old = _logprobs(work, policy, responses, "policy")
    logp_ref = logp_old if reference == policy else _logprobs(work, reference, responses, "reference")
    scored = Scored(responses, logp_old, logp_ref, judgement.preference, judgement.reward)
    return work.keep("rollout.parquet", lambda path: rollouts.save_scored(scored, path))


def _logprobs(work: Workspace, policy: Manifest, responses: Rollout, name: str) -> NDArray[np.float64]:
    from components import logprobs

    return logprobs.score_responses(
        work.policy(policy),
        responses.prompt_tokens,
        responses.tokens,
        progress=work.progress(f"log-probs under the {name}"),
    )


def gather(work: Workspace, shards: Sequence[Manifest]) -> dict[str, int]:
    """Checks that the shards hold the whole iteration; counts prompts, responses and tokens."""
    parts = [work.rollout(shard) for shard in shards]
    counts = {
        "prompts": sum(part.shape[0] for part in parts),
        "responses": sum(len(part.tokens) for part in parts),
        "tokens_generated": sum(len(part.tokens.values) for part in parts),
    }
    if counts["prompts"] != work.config.prompts.per_iteration:
        raise ValueError(
            f"{counts['prompts']} of {work.config.prompts.per_iteration} prompts came back from "
            f"{len(shards)} shards. Resume from this iteration's plan step."
        )
    return counts


def train(
    work: Workspace, policy: Manifest, optimizer: Manifest | None, shards: Sequence[Manifest], iteration: int
) -> Trained:
    """One iteration's update of the policy."""
    from components import policy as policies
    from components import training

    config = work.config
    loaded = work.policy(policy)
    adam = training.make_optimizer(loaded, config.training)
    if optimizer is not None:
        training.load_optimizer(loaded, adam, work.fetch(optimizer) / OPTIMIZER_FILE)
    figures = training.train(
        loaded,
        work.scored(shards),
        config.build_algorithm(),
        config.training,
        adam,
        iteration=iteration,
        iterations=config.iterations,
        seed=config.seed,
        progress=work.progress("train"),
    )
    return Trained(
        policy=work.store.put(policies.save(loaded, work.folder / "trained")),
        optimizer=work.keep(OPTIMIZER_FILE, lambda path: training.save_optimizer(loaded, adam, path)),
        figures=figures,
    )


def evaluate(
    work: Workspace,
    policy: Manifest,
    reference: Manifest,
    prompts_manifest: Manifest,
    evaluated: Sequence[Manifest],
    iteration: int,
) -> evaluation.Evaluated:
    """Responses to the held-out prompts, compared with those of the reference and of the policy before.

    `evaluated` holds the responses of the reference and of the previous policy.
    """
    held_out = work.prompts(prompts_manifest, "evaluation")
    responses = _sample(work, work.policy(policy), held_out, "evaluate", iteration)
    rivals = [work.rollout(manifest) for manifest in evaluated]
    judgement = rollouts.judge(
        work.config.build_judge(), held_out, [responses, *rivals], work.progress("judge responses")
    )
    m = work.config.evaluation.responses
    ours, theirs, previous = (slice(i * m, (i + 1) * m) for i in range(3))
    return evaluation.Evaluated(
        rollout=work.keep_rollout(responses),
        against_reference=evaluation.win_rate(judgement.preference, ours, theirs),
        against_previous=evaluation.win_rate(judgement.preference, ours, previous),
        kl=evaluation.kl(
            _logprobs(work, policy, responses, "policy"), _logprobs(work, reference, responses, "reference")
        ),
        reward=float(judgement.reward[:, ours].mean()),
        response_length=float(responses.tokens.lengths.mean()),
        truncated=float(1 - responses.finished.mean()),
    )


def examples(work: Workspace, prompts_manifest: Manifest, reference: Manifest, final: Manifest) -> list[dict[str, Any]]:
    """Held-out prompts with a response of the reference and one of the final policy, for the report."""
    shown = work.prompts(prompts_manifest, "evaluation")[: work.config.evaluation.examples]
    rivals = [work.rollout(manifest) for manifest in (reference, final)]
    texts = [[rollout.group(i)[0] for rollout in rivals] for i in range(len(shown))]
    reward = work.config.build_judge().judge(shown, texts).reward
    return [
        {
            "prompt": prompt.text,
            "answer": prompt.answer,
            "reference_response": row[0],
            "final_response": row[1],
            "reference_reward": float(scores[0]),
            "final_reward": float(scores[1]),
        }
        for prompt, row, scores in zip(shown, texts, reward, strict=True)
    ]
