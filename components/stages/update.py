"""The stage `train`: the next policy from the current one, by whichever kind of algorithm the config names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from components.algorithms import Algorithm, OnPolicyAlgorithm
from components.config.marks import Aside, marked
from components.run_config import RunConfig
from components.runtime.progress import silent
from components.stages import sampling
from components.stages.context import ANCHOR_FILE, OPTIMIZER_FILE, Workspace
from components.stages.handover import TrainInput, TrainResult
from components.store import Manifest
from components.training import leftovers, ties

if TYPE_CHECKING:  # stages import this module, also in steps that do without torch
    from components.policy.model import Policy
    from components.training.checkpoints import Checkpoints
    from components.training.loop import Schedule
    from components.training.state import TrainingState


def train_here(work: Workspace, given: TrainInput) -> TrainResult | None:
    """`stages.train` in one process; of several that torch.distributed knows, the first has the result."""
    from components.training import sharding
    from components.training.checkpoints import Checkpoints
    from components.training.optimizer import require_finite, save_optimizer

    key = _key(work, given)
    checkpoints = Checkpoints(work.store, key, work.config.training, work.shared_folder("unfinished"))
    state = _begin(work, given)
    checkpoints.restore(state)
    if state.anchor is None:
        figures, warnings = _fit(work, given, state, checkpoints)
    else:
        figures = _fit_on_policy(work, given, state, checkpoints)
        warnings = ties.in_training(figures["tied"], work.config.generation, steps=True, fresh=True)
    kept = work.new_folder()
    save_optimizer(state.policy, state.optimizer, kept / OPTIMIZER_FILE)
    if state.anchor is not None:
        from components.training.on_policy import save_anchor

        save_anchor(state.policy, state.anchor, kept / ANCHOR_FILE)
    policy = sharding.gathered(state.policy, lambda: _loaded(work, given))
    if policy is None:
        return None
    require_finite(policy)
    return TrainResult(
        policy=_keep_policy(work, given, policy),
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


def _keep_policy(work: Workspace, given: TrainInput, policy: Policy) -> Manifest:
    """Stores the policy; with LoRA only its adapter, beside whose files the base's stay as they are."""
    from components.policy import lora
    from components.policy import model as policies

    folder = work.folder / "trained"
    if work.config.training.lora is None:
        return work.keep_files(policies.save(policy, folder))
    return dict(sorted({**given.policy, **work.keep_files(lora.save(policy.model, folder))}.items()))


def _loaded(work: Workspace, given: TrainInput) -> Policy:
    """pi_t, with an adapter that changes nothing if it is to get one and has none."""
    from components.policy import lora

    settings, policy = work.config.training, work.policy(given.policy)
    if settings.lora is not None and not lora.weights(policy.model):
        lora.add(policy.model, settings.lora, work.config.seed)
    return policy


def _begin(work: Workspace, given: TrainInput) -> TrainingState:
    from components.training import sharding
    from components.training.gradient_checkpointing import checkpointed
    from components.training.on_policy import make_anchor
    from components.training.optimizer import load_optimizer, make_optimizer
    from components.training.state import TrainingState

    settings = work.config.training
    policy = _loaded(work, given)
    if settings.gradient_checkpointing:
        policy = checkpointed(policy)
    if settings.world > 1:
        policy = sharding.shard(policy, settings)
    state = TrainingState(policy, make_optimizer(policy, settings), settings.micro_batch_size)
    saved = None if given.optimizer is None else work.fetch(given.optimizer)
    if saved is not None:
        load_optimizer(policy, state.optimizer, saved / OPTIMIZER_FILE)
    if work.config.algorithm.on_policy:
        state.anchor = make_anchor(policy, None if saved is None else saved / ANCHOR_FILE)
    return state


def _key(work: Workspace, given: TrainInput) -> str:
    from components.training.checkpoints import training_key

    config = work.config.model_dump()
    for key in marked(RunConfig, Aside):
        section, _, name = key.rpartition(".")
        del (config[section] if section else config)[name]
    return training_key(
        config=config,
        begin=[given.policy, given.optimizer, given.iteration, given.since],
        data=[list(given.shards), list(given.scored)],
        precision=work.precision,
        threads=work.threads,  # sums in another order differ in their last bits
    )


def _fit(
    work: Workspace, given: TrainInput, state: TrainingState, checkpoints: Checkpoints
) -> tuple[dict[str, float], str]:
    """Figures, and warnings if training went wrong."""
    from components.training import learning, off_policy
    from components.training.monitor import Monitor

    algorithm, data, schedule = work.config.algorithm, work.scored(given.scored), _schedule(work, given)
    assert isinstance(algorithm, Algorithm)
    monitor = Monitor.of(data, algorithm, schedule)
    saved = monitor.around(checkpoints.step_done)
    figures = off_policy.train(state, data, algorithm, schedule, progress=work.progress("train"), saved=saved)
    figures["tied"] = ties.share(data.preference)
    warned = ties.in_training(figures["tied"], work.config.generation, steps=state.done > 0)
    if (seen := monitor.seen(state)) is None:
        return figures, warned
    told = learning.warnings(seen, algorithm, work.config.training, pace=schedule.pace(len(data.logp_old)))
    return figures | learning.figures(seen), f"{warned} {told}".strip()


def _fit_on_policy(
    work: Workspace, given: TrainInput, state: TrainingState, checkpoints: Checkpoints
) -> dict[str, float]:
    from components.training.loop import run_steps
    from components.training.on_policy import OnPolicyTrainer

    algorithm = work.config.algorithm
    assert isinstance(algorithm, OnPolicyAlgorithm)
    trainer = OnPolicyTrainer(
        state,
        algorithm,
        [prompt for shard in given.shards for prompt in work.prompts(shard, "shard")],
        draw=lambda drawn_from, prompts, count, purpose: work.sample(
            drawn_from, prompts, responses=count, purpose=purpose, iteration=given.iteration, progress=silent
        ),
        compare=partial(sampling.judge, work.config.judge),
    )
    return run_steps(
        trainer,
        state,
        _schedule(work, given),
        np.arange(len(trainer.prompts)),
        of=len(trainer.prompts),
        progress=work.progress("train"),
        saved=checkpoints.step_done,
    )


def _schedule(work: Workspace, given: TrainInput) -> Schedule:
    """Where the iteration stands in the run."""
    from components.training.loop import Schedule

    config = work.config
    return Schedule(config.training, given.iteration, config.iterations, config.seed, given.since)
