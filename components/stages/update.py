"""The stage `train`: the next policy from the current one, by whichever kind of algorithm the config names."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from components.algorithms import Algorithm, OnPolicyAlgorithm
from components.config.errors import ConfigError
from components.config.sections import TrainingConfig
from components.data import rollouts
from components.runtime.progress import silent
from components.stages.context import ANCHOR_FILE, OPTIMIZER_FILE, Workspace
from components.store import Manifest
from components.training import leftovers, ties

if TYPE_CHECKING:  # stages import this module, also in steps that do without torch
    from transformers import PreTrainedModel

    from components.policy.model import Policy
    from components.training.checkpoints import Checkpoints
    from components.training.state import TrainingState


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Before:
    """What an iteration's training begins with."""

    policy: Manifest
    optimizer: Manifest | None  # its state and what else runs on from iteration to iteration; None at first
    iteration: int  # 1-based, over all runs that this one goes on from
    since: int = 0  # iterations of those runs


@dataclass(frozen=True)
class Trained:
    """What `train` hands on."""

    policy: Manifest
    optimizer: Manifest  # its state and, for on-policy algorithms, the anchor
    figures: dict[str, float]  # means over the iteration's optimiser steps, `ties.share`, and `learning.figures`
    warnings: str  # of `ties.in_training` and `learning.warnings`
    counts: dict[str, int]  # micro_batch_size at its end; responses, tokens_generated if training itself drew any
    seconds_before: float  # spent by earlier attempts on what this one did not have to do again
    unfinished: str  # key of the state saved on the way, for `forget_unfinished` once this is recorded


def check(settings: TrainingConfig, model: PreTrainedModel | None = None) -> None:
    """Raises ConfigError or PolicyError for settings that cannot be followed here, or not with the model if given."""
    if settings.optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "training.optimizer: adamw_8bit needs bitsandbytes, which is not installed. "
            "Run pip install bitsandbytes, or use adamw."
        )
    if model is not None and settings.lora is not None:
        from components.policy import lora

        lora.check(model, settings.lora)
    if model is not None and (settings.gradient_checkpointing or settings.processes > 1):
        from components.training.gradient_checkpointing import layers

        layers(model)


def train(work: Workspace, before: Before, shards: Sequence[Manifest], scored: Sequence[Manifest]) -> Trained:
    """One iteration's update of the policy, from scored rollouts or, on-policy, from the shards' prompts.

    Goes on from the state that an earlier attempt at the same work saved. Raises FloatingPointError when training
    diverges, and stores nothing then.
    """
    if work.config.training.processes > 1:
        from components.stages import training_processes

        trained = training_processes.train(work, before, shards, scored)
    else:
        alone = train_here(work, before, shards, scored)
        assert alone is not None
        trained = alone
    if trained.warnings:
        logger.warning("iteration %d: %s", before.iteration, trained.warnings)
    return trained


def train_here(
    work: Workspace, before: Before, shards: Sequence[Manifest], scored: Sequence[Manifest]
) -> Trained | None:
    """`train` in this process, alone or with those that torch.distributed knows; of these the first has the result."""
    from components.training import sharding
    from components.training.checkpoints import Checkpoints
    from components.training.optimizer import require_finite, save_optimizer

    key = _key(work, before, shards, scored)
    checkpoints = Checkpoints(work.store, key, work.config.training, work.new_folder())
    state = _begin(work, before)
    checkpoints.restore(state)
    if state.anchor is None:
        figures, warnings = _fit(work, before, state, scored, checkpoints)
    else:
        figures = _fit_on_policy(work, before, state, shards, checkpoints)
        warnings = ties.in_training(figures["tied"], work.config.generation, steps=True, fresh=True)
    kept = work.new_folder()
    save_optimizer(state.policy, state.optimizer, kept / OPTIMIZER_FILE)
    if state.anchor is not None:
        from components.training.on_policy import save_anchor

        save_anchor(state.policy, state.anchor, kept / ANCHOR_FILE)
    policy = sharding.gathered(state.policy, lambda: work.policy(before.policy))
    if policy is None:
        return None
    require_finite(policy)
    return Trained(
        policy=_keep_policy(work, before, policy),
        optimizer=work.keep_files(kept),
        figures=figures,
        warnings=warnings,
        counts={**state.drawn, "micro_batch_size": state.micro_batch_size},
        seconds_before=checkpoints.seconds_before,
        unfinished=key,
    )


def forget_unfinished(work: Workspace, key: str) -> None:
    """Removes the state that `train` saved on the way, when its result is recorded."""
    leftovers.forget(work.store, key)


def _keep_policy(work: Workspace, before: Before, policy: Policy) -> Manifest:
    """Stores the policy; with LoRA only its adapter, beside whose files the base's stay as they are."""
    from components.policy import lora
    from components.policy import model as policies

    folder = work.folder / "trained"
    if work.config.training.lora is None:
        return work.keep_files(policies.save(policy, folder))
    return dict(sorted({**before.policy, **work.keep_files(lora.save(policy.model, folder))}.items()))


def _begin(work: Workspace, before: Before) -> TrainingState:
    from components.policy import lora
    from components.training import sharding
    from components.training.gradient_checkpointing import checkpointed
    from components.training.on_policy import make_anchor
    from components.training.optimizer import load_optimizer, make_optimizer
    from components.training.state import TrainingState

    settings = work.config.training
    policy = work.policy(before.policy)
    if settings.lora is not None and not lora.weights(policy.model):
        lora.add(policy.model, settings.lora, work.config.seed)
    if settings.gradient_checkpointing:
        policy = checkpointed(policy)
    if settings.processes > 1:
        policy = sharding.shard(policy)
    state = TrainingState(policy, make_optimizer(policy, settings), settings.micro_batch_size)
    saved = None if before.optimizer is None else work.fetch(before.optimizer)
    if saved is not None:
        load_optimizer(policy, state.optimizer, saved / OPTIMIZER_FILE)
    if isinstance(work.config.build_algorithm(), OnPolicyAlgorithm):
        state.anchor = make_anchor(policy, None if saved is None else saved / ANCHOR_FILE)
    return state


def _key(work: Workspace, before: Before, shards: Sequence[Manifest], scored: Sequence[Manifest]) -> str:
    from components.training.checkpoints import training_key

    config = work.config.model_dump(include={"algorithm", "generation", "iterations", "judge", "policy", "seed"})
    settings = work.config.training.model_dump(exclude={"checkpoint_minutes", "checkpoint_steps"})
    return training_key(
        config=config,
        training=settings,
        begin=[before.policy, before.optimizer, before.iteration, before.since],
        data=[list(shards), list(scored)],
        precision=work.precision,
        threads=work.threads,  # sums in another order differ in their last bits
    )


def _fit(
    work: Workspace, before: Before, state: TrainingState, scored: Sequence[Manifest], checkpoints: Checkpoints
) -> tuple[dict[str, float], str]:
    """Figures, and warnings if training went wrong."""
    from components.training import learning, off_policy
    from components.training.monitor import Monitor, pace

    algorithm, settings = work.config.build_algorithm(), work.config.training
    assert isinstance(algorithm, Algorithm)
    data = work.scored(scored)
    monitor = Monitor.of(data, algorithm, settings, seed=work.config.seed, iteration=before.iteration)
    schedule = _schedule(work, before, checkpoints)
    schedule["saved"] = monitor.around(checkpoints.step_done)
    figures = off_policy.train(state, data, algorithm, settings, **schedule)
    figures["tied"] = ties.share(data.preference)
    warned = ties.in_training(figures["tied"], work.config.generation, steps=state.done > 0)
    if (seen := monitor.seen(state)) is None:
        return figures, warned
    when = {"iteration": before.iteration, "iterations": work.config.iterations, "since": before.since}
    share = pace(settings, len(data.logp_old), **when)
    warned = f"{warned} {learning.warnings(seen, algorithm, settings, pace=share)}".strip()
    return figures | learning.figures(seen), warned


def _fit_on_policy(
    work: Workspace, before: Before, state: TrainingState, shards: Sequence[Manifest], checkpoints: Checkpoints
) -> dict[str, float]:
    from components.training.off_policy import run_steps, steps_per_iteration
    from components.training.on_policy import OnPolicyTrainer

    config, judge, algorithm = work.config, work.config.build_judge(), work.config.build_algorithm()
    assert isinstance(algorithm, OnPolicyAlgorithm)
    trainer = OnPolicyTrainer(
        state,
        algorithm,
        [prompt for shard in shards for prompt in work.prompts(shard, "shard")],
        draw=lambda drawn_from, prompts, count, purpose: work.sample(
            drawn_from, prompts, responses=count, purpose=purpose, iteration=before.iteration, progress=silent
        ),
        compare=partial(rollouts.judge, judge),
    )
    return run_steps(
        trainer,
        state,
        config.training,
        np.arange(len(trainer.prompts)),
        steps=steps_per_iteration(config.training, len(trainer.prompts)),
        **_schedule(work, before, checkpoints),
    )


def _schedule(work: Workspace, before: Before, checkpoints: Checkpoints) -> dict[str, Any]:
    """Where the iteration stands in the run, and what is called after each step."""
    return {
        "iteration": before.iteration,
        "iterations": work.config.iterations,
        "since": before.since,
        "seed": work.config.seed,
        "progress": work.progress("train"),
        "saved": checkpoints.step_done,
    }
