"""The stages of one iteration, in their order."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components import prompts
from components.config.errors import ConfigError
from components.data import rollouts
from components.evaluation import metrics
from components.judges import summed
from components.plan import splitting
from components.run_config import RunConfig
from components.stages import evaluating, sampling, scoring, update
from components.stages.context import SHARD_FILE, Workspace
from components.stages.handover import EvaluateInput, Node, TrainInput, TrainResult
from components.store import Manifest

if TYPE_CHECKING:  # plan, gather and end do without torch
    import pandas as pd

    from components.evaluation.benchmarks import Score
    from components.policy.model import Policy

logger = logging.getLogger(__name__)


def plan(
    work: Workspace, prompts_manifest: Manifest, iteration: int, history: pd.DataFrame | None = None
) -> list[Manifest]:
    """This iteration's prompts, split into shards; each a file of its own, so that a task reads only its share.

    How many there are may follow from what earlier iterations took, the rows of `history`.
    """
    settings = work.config.prompts
    train = work.prompts(prompts_manifest, "train")
    chosen = prompts.choose(train, per_iteration=settings.per_iteration, iteration=iteration, seed=work.config.seed)
    shards = prompts.into_shards(chosen, splitting.how_many(settings, history))
    folder = work.new_folder()
    for number, shard in enumerate(shards):
        place = folder / f"{number:09d}"
        place.mkdir()
        prompts.save(shard, place / SHARD_FILE)
    # All at once: for each file kept, the task's note is written anew, with all files so far.
    return [{SHARD_FILE: entry} for _, entry in sorted(work.keep_files(folder).items())]


def generate(work: Workspace, policy: Manifest, shard: Manifest, iteration: int) -> Manifest:
    """K responses to each prompt of a shard; none for an on-policy algorithm, whose training step draws its own."""
    if _on_policy(work):
        return {}
    chosen = work.prompts(shard, "shard")
    k = work.config.generation.responses
    loaded = work.policy(policy, weights=not work.config.generation.engine.reads_files)
    drawn = work.sample(loaded, chosen, responses=k, purpose="train", iteration=iteration)
    return work.keep_rollout(drawn)


def _on_policy(work: Workspace) -> bool:
    return work.config.algorithm.on_policy


def score(work: Workspace, policy: Manifest, reference: Manifest, rollout: Manifest, shard: Manifest) -> Manifest:
    """Judges a shard's responses and adds their log-probs under policy and reference."""
    if _on_policy(work):
        return {}
    work.use_threads()
    responses = work.rollout(rollout)
    chosen = work.prompts(shard, "shard")
    with work.loading.running():
        work.config.judge.load()
    judgement = sampling.judge(work.config.judge, chosen, [responses], work.progress("judge responses"))
    scored = scoring.scored(work, policy, reference, responses, judgement)
    return work.keep(
        "rollout.parquet", lambda path: rollouts.save_scored(scored, path, judgement.parts, judgement.usage)
    )


def gather(
    work: Workspace,
    shards: Sequence[Manifest],
    scored: Sequence[Manifest],
    seconds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Checks that the scored shards hold just the planned prompts; counts prompts, responses and tokens.

    Adds `logp_difference`, the largest one between the engine's log-probs and the trainer's, if the engine gives some,
    what the judge took, such as `judge_tokens_in`, if it counts that, and with `shards: auto` `splitting.columns` of
    the slowest shard's `seconds`.
    """
    planned = [prompt.id for shard in work.shards(shards) for prompt in shard]
    if _on_policy(work):
        return {"prompts": len(planned), "responses": 0, "tokens_generated": 0}
    files = [folder / "rollout.parquet" for folder in work.fetch_each(scored)]
    parts = [rollouts.count(file) for file in files]
    found = [prompt_id for part in parts for prompt_id in part.prompt_ids]
    if found != planned:
        missing = sorted(set(planned) - set(found))
        raise ValueError(
            f"the {len(scored)} shards hold {len(found)} prompts and not the {len(planned)} planned ones; "
            f"missing: {', '.join(missing[:5]) or 'none'}. Resume from this iteration's plan step."
        )
    counted = splitting.columns(len(scored), seconds or {}) if work.config.prompts.shards == "auto" else {}
    differences = [difference for file in files if (difference := rollouts.logp_difference(file)) is not None]
    usage = summed(rollouts.judge_usage(file) for file in files)
    return {
        "prompts": len(found),
        "responses": sum(part.responses for part in parts),
        "tokens_generated": sum(part.tokens for part in parts),
        **counted,
        **({"logp_difference": max(differences)} if differences else {}),
        **metrics.usage_columns(usage),
    }


def train(work: Workspace, given: TrainInput) -> TrainResult:
    """One iteration's update of the policy, from scored rollouts or, on-policy, from the shards' prompts.

    Continues from the state that an earlier attempt at the same work saved. Raises FloatingPointError when training
    diverges, and stores nothing then.
    """
    trained = train_on(work, given, Node())
    assert trained is not None
    return trained


def train_on(work: Workspace, given: TrainInput, node: Node) -> TrainResult | None:
    """`train` on one of `training.nodes` machines, all of which must take part; of several, the first has the result.

    Raises ConfigError where the node is one of another number of machines.
    """
    settings = work.config.training
    if node.count != settings.nodes:
        raise ConfigError(
            f"training.nodes: {settings.nodes} machines are to train, and this is one of {node.count}. Run "
            "flows/wind_flow.py, which starts them all, or set training.nodes: 1."
        )
    if settings.world > 1:
        from components.stages import training_processes

        trained = training_processes.train(work, given, node)
    else:
        trained = update.train_here(work, given)
    if trained is not None and trained.warnings:
        logger.warning("iteration %d: %s", given.iteration, trained.warnings)
    return trained


def evaluation_due(config: RunConfig, iteration: int, since: int = 0) -> bool:
    """Whether `evaluate` has something to do after an iteration; see `EvaluateInput`."""
    return metrics.due(config.evaluation, iteration, since=since, iterations=config.iterations)


def evaluate(work: Workspace, given: EvaluateInput) -> metrics.Evaluated:
    """Compares responses to the held-out prompts with those of the reference and of the last policy evaluated.

    Where no evaluation is due, keeps the last policy's responses and gives figures that are NaN.
    """
    if not evaluation_due(work.config, given.iteration, given.since):
        return metrics.skipped(given.by_last)
    held_out = work.prompts(given.prompts, "evaluation")
    current = work.policy(given.policy)
    m = work.config.evaluation.responses
    responses = work.sample(current, held_out, responses=m, purpose="evaluate", iteration=given.iteration)
    logp, scores = scoring.of_own(work, current, responses), _scores(work, given.policy, current)
    del current  # two models at once would need twice the memory
    base = work.policy(given.reference)
    # Of one policy, both must be the same to the last bit: drawing and a pass round differently.
    logp_ref = logp if given.policy == given.reference else scoring.of_reference(work, base, responses)
    base_scores = _scores(work, given.reference, base)
    del base
    rivals = [work.rollout(manifest) for manifest in (given.by_reference, given.by_last)]
    judgement = sampling.judge(work.config.judge, held_out, [responses, *rivals], work.progress("judge responses"))
    evaluated = evaluating.measured(work, held_out, [responses, *rivals], judgement, logp, logp_ref)
    if evaluated.text_warnings:
        logger.warning("iteration %d: %s", given.iteration, evaluated.text_warnings)
    return replace(evaluated, benchmarks=_benchmarks(scores, base_scores))


def add_row(
    history: pd.DataFrame | None, config: RunConfig, iteration: int, evaluated: metrics.Evaluated, **of_training: Any
) -> pd.DataFrame:
    """`history` with a row for one more iteration; `of_training` as `metrics.history_row` takes it."""
    import pandas as pd

    name = config.algorithm.name
    row = metrics.history_row(iteration=iteration, algorithm=name, evaluated=evaluated, **of_training)
    return row if history is None else pd.concat([history, row], ignore_index=True)


def _benchmarks(policy: Sequence[Score], reference: Sequence[Score]) -> tuple[metrics.Benchmark, ...]:
    return tuple(
        metrics.Benchmark(ours.task, ours.metric, ours.value, theirs.value)
        for ours, theirs in zip(policy, reference, strict=True)
    )


def _scores(work: Workspace, manifest: Manifest, policy: Policy) -> list[Score]:
    """What a policy reaches in the config's benchmarks."""
    settings = work.config.evaluation
    if not settings.tasks:
        return []
    from components.evaluation import benchmarks

    return benchmarks.once(work.store, [manifest, work.precision], settings, lambda: benchmarks.run(policy, settings))


def examples(work: Workspace, prompts_manifest: Manifest, reference: Manifest, final: Manifest) -> list[dict[str, Any]]:
    """Held-out prompts with a response of the reference and one of the final policy, for the report."""
    shown = work.prompts(prompts_manifest, "evaluation")[: work.config.evaluation.examples]
    rivals = [work.rollout(manifest) for manifest in (reference, final)]
    rewards = [work.rewards(manifest) for manifest in (reference, final)]
    parts = [work.parts(manifest) for manifest in (reference, final)]
    return [
        {
            "prompt": prompt.text,
            "answer": prompt.answer,
            "reference_response": rivals[0].group(i)[0],
            "final_response": rivals[1].group(i)[0],
            "reference_reward": float(rewards[0][i, 0]),
            "final_reward": float(rewards[1][i, 0]),
            "reference_parts": {name: float(values[i, 0]) for name, values in parts[0].items()},
            "final_parts": {name: float(values[i, 0]) for name, values in parts[1].items()},
        }
        for i, prompt in enumerate(shown)
    ]
