"""Settings that do not go together, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from components.algorithms.wind import Wind
from components.config import registry
from components.config.steps import JUDGING, SAMPLING
from components.judges import Judge
from components.run_config.fields import NOT_GIVEN, RunFields

OWN_PROMPTS = "stands beside a `demo` section, which makes its own prompts. Remove one of the two."
NOT_IN_DEMO = ("train", "evaluation", "column", "subset", "evaluation_split", "leave_out")


def found(run: RunFields) -> Iterator[str]:
    """A sentence for each conflict."""
    yield from _with_demo(run) if run.demo is not None else _without_demo(run)
    yield from _in_prompts(run)
    yield from _in_processes(run)
    yield from _between_plug_ins(run)
    names = [tracker.name for tracker in run.trackers]
    yield from (f"trackers: {name} is given twice. Keep one of them." for name in set(names) if names.count(name) > 1)
    if run.start_from is not None and run.compare is not None:
        yield "start_from: is not for comparisons, whose arms begin alike. Remove it, or run flows/wind_flow.py."


def _with_demo(run: RunFields) -> Iterator[str]:
    if run.policy.model is not None:
        yield (
            f"policy.model: {run.policy.model!r} stands beside a `demo` section, which makes its own policy. "
            "Remove one of the two."
        )
    yield from (f"prompts.{key}: {OWN_PROMPTS}" for key in NOT_IN_DEMO if getattr(run.prompts, key))
    if run.evaluation.group_by is not None:
        yield (
            "evaluation.group_by: stands beside a `demo` section, whose prompts have no metadata. Remove "
            "one of the two."
        )


def _without_demo(run: RunFields) -> Iterator[str]:
    if not run.policy.model:
        yield "policy.model: is required. Name a Hugging Face directory or hub id, or add `demo: {}`."
    if not run.prompts.train:
        yield "prompts.train: is required. Name a JSONL or Parquet file or a Hugging Face dataset."
    if run.judge is NOT_GIVEN:
        yield f"judge: {registry.unnamed('judges')}"


def _in_prompts(run: RunFields) -> Iterator[str]:
    prompts, train, k = run.prompts, run.training, run.generation.responses
    if k < 2:
        yield f"generation.responses: {k} is too few, a win rate needs a rival. Use 2 or more."
    if prompts.shards_at_most > prompts.per_iteration:
        yield (
            f"prompts.shards: {prompts.shards} shards cannot share {prompts.per_iteration} prompts. "
            "Lower prompts.shards or raise prompts.per_iteration."
        )
    if prompts.shards == "auto" and run.algorithm.on_policy:
        yield (
            f"prompts.shards: auto measures generate and score, where {run.algorithm.name} does nothing: it draws "
            "responses while it trains. Use shards: 1."
        )
    batch = min(train.batch_size, prompts.per_iteration)
    if train.micro_batch_size > batch:
        yield (
            f"training.micro_batch_size: {train.micro_batch_size} exceeds the {batch} prompts of a step. "
            f"Use {batch} or fewer."
        )
    if (prompts.drop_longer or 0) > run.policy.max_prompt_tokens:
        yield (
            f"prompts.drop_longer: {prompts.drop_longer} exceeds policy.max_prompt_tokens, "
            f"{run.policy.max_prompt_tokens}, and prompts in between stop the run. Raise that, or lower this."
        )


def _in_processes(run: RunFields) -> Iterator[str]:
    """What does not go together with training in several processes."""
    train, gpus = run.training, run.resources.train.gpu
    if train.world == 1:
        return
    one = [f"training.{name}: 1" for name in ("processes", "nodes") if getattr(train, name) > 1]
    if run.algorithm.on_policy:
        yield (
            f"algorithm.name: {run.algorithm.name} trains in one process, since it draws responses between any two "
            f"steps and all weights would be gathered for each token. Set {' and '.join(one)}."
        )
    if train.nodes > 1 and run.compare is not None:
        yield (
            "training.nodes: is not for comparisons, whose arms train each on one machine. Set training.nodes: 1, or "
            "run flows/wind_flow.py."
        )
    if 0 < gpus != train.processes:
        yield (
            f"training.processes: {train.processes} processes need a GPU each, and resources.train.gpu is {gpus}. "
            "Make them equal."
        )


def _between_plug_ins(run: RunFields) -> Iterator[str]:
    algorithm, engine = run.algorithm, run.generation.engine
    if algorithm.on_policy and engine.reads_files:
        yield (
            f"generation.engine: {engine.name} samples from files, and {algorithm.name} samples from the policy "
            "while it trains. Use engine: {name: transformers}."
        )
    kept, k = algorithm.trained_responses if isinstance(algorithm, Wind) else None, run.generation.responses
    if kept is not None and kept > k:
        yield f"algorithm.trained_responses: {kept} of {k} responses to a prompt are too many. Use {k} or fewer."
    if algorithm.on_policy and any(member.starts_anew for member in _members(run)):
        yield (
            f"judge.engine: vllm starts anew each time that it judges, and {algorithm.name} judges at every training "
            "step. Use engine: {name: transformers}."
        )
    if algorithm.reads_rewards and run.judge is not NOT_GIVEN and run.judge.scores_what_loses:
        yield (
            f"judge.truncated_penalty: lose decides pairs, and {algorithm.name} trains on this judge's scores. "
            "Use a number, which is subtracted from them."
        )
    for kind in SAMPLING:
        if 0 < (gpus := getattr(run.resources, kind).gpu) < engine.gpus:
            yield (
                f"resources.{kind}.gpu: {gpus} is too few, generation.engine.tensor_parallel is {engine.gpus}. "
                "Make them equal."
            )
    judge = max((member.gpus for member in _members(run)), default=1)
    for kind in JUDGING:
        if 0 < (gpus := getattr(run.resources, kind).gpu) < judge:
            yield (
                f"resources.{kind}.gpu: {gpus} is too few, judge.engine.tensor_parallel is {judge}. Make them equal."
            )


def _members(run: RunFields) -> Sequence[Judge]:
    return [] if run.judge is NOT_GIVEN else run.judge.members
