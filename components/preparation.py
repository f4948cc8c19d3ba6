"""The stage `start`: everything that could fail later is checked here, before hours of work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components import benchmarks, prompts, rollouts, updating
from components.judges import Judge
from components.records import Prompt
from components.store import Manifest
from components.workspace import Workspace

if TYPE_CHECKING:
    from components.origin import Origin


@dataclass(frozen=True)
class Started:
    """What `start` hands to the iterations."""

    policy: Manifest  # base policy and reference
    prompts: Manifest  # train.jsonl and evaluation.jsonl
    evaluated: Manifest  # the reference's responses to the evaluation prompts
    reward: float  # their mean score
    precision: str  # resolved: "fp32" or "bf16"


def start(work: Workspace, origin: Origin | None = None) -> Started:
    """Checks everything that could fail later, stores base policy and prompts, samples the reference's responses.

    Of a run to go on from, takes all that instead.
    """
    work.use_threads()
    work.store.check()
    judge = work.config.build_judge()
    judge.check()
    work.config.build_engine().check()
    benchmarks.check(work.config.evaluation)
    updating.check(work.config.training)
    if origin is None:
        return _start_anew(work, judge)
    origin.check(work)
    _check_number(work, work.prompts(origin.started.prompts, "train"))
    return origin.started


def _start_anew(work: Workspace, judge: Judge) -> Started:
    import torch

    from components import logprobs, policy, precision

    config = work.config
    source, sources = _sources(work)
    train, held_out = _load_prompts(work, *sources)
    folder = policy.copy_files(source, work.folder / "policy", code=config.policy.trust_remote_code)
    lora = config.training.lora is not None
    base = policy.load(folder, config.policy, precision=config.policy.precision, frozen=lora)
    policy.check_lengths(
        base,
        [*train, *held_out],
        max_prompt_tokens=config.policy.max_prompt_tokens,
        max_new_tokens=config.generation.max_new_tokens,
    )
    logprobs.check_head(base)
    updating.check(config.training, base.model)
    work = replace(work, precision=precision.pick_precision(base, config.policy.precision))
    policy_manifest = work.store.put(folder)
    prompts_folder = work.folder / "prompts"
    prompts_folder.mkdir()
    prompts.save(train, prompts_folder / "train.jsonl")
    prompts.save(held_out, prompts_folder / "evaluation.jsonl")
    if lora and work.precision == "bf16":
        base.model.to(torch.bfloat16)  # where only the probe told; the other steps load it so
    base, m = replace(base, precision=work.precision), config.evaluation.responses
    responses = work.sample(base, held_out, responses=m, purpose="evaluate", iteration=0)
    reward = rollouts.judge(judge, held_out, [responses]).reward
    return Started(
        policy=policy_manifest,
        prompts=work.store.put(prompts_folder),
        evaluated=work.keep_rollout(responses, reward),
        reward=float(reward.mean()),
        precision=work.precision,
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
    _check_number(work, trained)
    return trained, evaluated


def _check_number(work: Workspace, trained: list[Prompt]) -> None:
    prompts.choose(trained, per_iteration=work.config.prompts.per_iteration, iteration=1, seed=work.config.seed)
