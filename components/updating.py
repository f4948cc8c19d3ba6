"""The stage `train`: the next policy from the current one, by whichever kind of algorithm the config names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import rollouts
from components.algorithms import OnPolicyAlgorithm
from components.progress import silent
from components.store import Manifest
from components.workspace import ANCHOR_FILE, OPTIMIZER_FILE, Workspace

if TYPE_CHECKING:  # stages import this module, also in steps that do without torch
    from torch.optim import AdamW

    from components.policy import Policy


@dataclass(frozen=True)
class Trained:
    """What `train` hands on."""

    policy: Manifest
    optimizer: Manifest  # its state and, for on-policy algorithms, the anchor
    figures: dict[str, float]  # means over the iteration's optimiser steps
    drawn: dict[str, int]  # `responses` and `tokens_generated` of the training step itself; empty if it drew none


def train(
    work: Workspace,
    policy: Manifest,
    optimizer: Manifest | None,
    shards: Sequence[Manifest],
    scored: Sequence[Manifest],
    iteration: int,
) -> Trained:
    """One iteration's update of the policy, from scored rollouts or, on-policy, from the shards' prompts.

    `optimizer` holds the optimiser's state and what else runs on from iteration to iteration.
    """
    from components import policy as policies
    from components.optimizer import load_optimizer, make_optimizer, save_optimizer

    loaded = work.policy(policy)
    adam = make_optimizer(loaded, work.config.training)
    state = None if optimizer is None else work.fetch(optimizer)
    if state is not None:
        load_optimizer(loaded, adam, state / OPTIMIZER_FILE)
    kept = work.new_folder()
    if isinstance(algorithm := work.config.build_algorithm(), OnPolicyAlgorithm):
        figures, drawn = _train_on_policy(work, loaded, algorithm, adam, shards, iteration, state, kept)
    else:
        figures, drawn = _train(work, loaded, algorithm, adam, scored, iteration), {}
    save_optimizer(loaded, adam, kept / OPTIMIZER_FILE)
    trained = policies.save(loaded, work.folder / "trained")
    return Trained(work.store.put(trained), work.store.put(kept), figures, drawn)


def _train(
    work: Workspace,
    policy: Policy,
    algorithm: Any,
    adam: AdamW,
    scored: Sequence[Manifest],
    iteration: int,
) -> dict[str, float]:
    from components import training

    return training.train(
        policy,
        work.scored(scored),
        algorithm,
        work.config.training,
        adam,
        iteration=iteration,
        iterations=work.config.iterations,
        seed=work.config.seed,
        progress=work.progress("train"),
    )


def _train_on_policy(
    work: Workspace,
    policy: Policy,
    algorithm: OnPolicyAlgorithm,
    adam: AdamW,
    shards: Sequence[Manifest],
    iteration: int,
    state: Path | None,
    kept: Path,
) -> tuple[dict[str, float], dict[str, int]]:
    from components.training import run_steps, steps_per_iteration
    from components.training_on_policy import OnPolicyTrainer, make_anchor, save_anchor

    config, judge = work.config, work.config.build_judge()
    trainer = OnPolicyTrainer(
        policy,
        make_anchor(policy, None if state is None else state / ANCHOR_FILE),
        algorithm,
        config.training,
        adam,
        [prompt for shard in shards for prompt in work.prompts(shard, "shard")],
        draw=lambda drawn_from, prompts, count, purpose: work.sample(
            drawn_from, prompts, responses=count, purpose=purpose, iteration=iteration, progress=silent
        ),
        compare=partial(rollouts.judge, judge),
    )
    figures = run_steps(
        trainer.step,
        adam,
        config.training,
        np.arange(len(trainer.prompts)),
        steps=steps_per_iteration(config.training, len(trainer.prompts)),
        iteration=iteration,
        iterations=config.iterations,
        seed=config.seed,
        progress=work.progress("train"),
    )
    save_anchor(trainer.anchor, kept / ANCHOR_FILE)
    return figures, {"responses": trainer.responses, "tokens_generated": trainer.tokens}
