"""The branches of a comparison, one per arm and seed: their configs, and all of them run without a flow."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from components import stages
from components.comparison import analysis
from components.config.errors import ConfigError, EngineError, PolicyError
from components.config.steps import SPENT
from components.plan import space
from components.run_config import RunConfig, checked
from components.runtime.processes import die_with_parent
from components.runtime.progress import Progress, silent
from components.stages.context import Workspace, open_workspace
from components.stages.handover import Started
from components.stages.in_process import Pipeline
from components.store import Manifest

CALIBRATION_BATCHES = 4


@dataclass(frozen=True)
class Branch:
    """One run of a comparison."""

    arm: str
    seed: int


def branches(config: RunConfig) -> list[Branch]:
    """All arms with the first seed, then all with the next."""
    assert config.compare is not None
    return [Branch(arm, seed) for seed in config.compare.seeds for arm in config.compare.arms]


def at_once(config: RunConfig, tasks: int, gpus: int) -> int:
    """How many branches train at once on a machine with so many GPUs that runs so many tasks; no GPU is shared."""
    assert config.compare is not None
    fewest = min(config.arm(name).num_gpus("train") for name in config.compare.arms)
    return min(tasks, max(1, gpus // fewest)) if gpus else tasks


def start(work: Workspace, *, together: int = 1) -> Started:
    """What all branches share; see `stages.start`. So many of them, at most, are `together` at work on one machine.

    Raises ConfigError for an arm that needs more prompts than exist, whose engine is not available, or whose training
    the model cannot follow; StoreError where there is too little room for all of them.
    """
    config = work.config
    assert config.compare is not None
    for name in config.compare.arms:
        with _told_of(name):
            config.arm(name).generation.engine.check()
    # The run's own number of prompts counts for no arm; theirs are checked below.
    prompts = config.prompts.model_copy(update={"per_iteration": 1})
    alone = config.model_copy(update={"prompts": prompts, "compare": None})
    started = stages.start(replace(work, config=alone))
    if config.compare.budget is None or config.compare.budget.samples is not None:
        for name in config.compare.arms:
            _check_prompts(name, config.arm(name), work, started)
    _check_model(work, started, together)
    return started


def _check_model(work: Workspace, started: Started, together: int) -> None:
    """Checks that the model can be trained as each arm says, and that there is room for what all of them store."""
    from components.training import checks

    config, model, files = work.config, work.without_weights(started.policy), space.size(started.policy)
    assert config.compare is not None
    runs = []
    for name in config.compare.arms:
        arm = config.arm(name)
        if arm.training != config.training:
            with _told_of(name):
                checks.check(arm.training, model)
        runs += [space.of_model(arm, model, files)] * len(config.compare.seeds)
    space.check(config, work.store, *runs, together=together)


@contextmanager
def _told_of(arm: str) -> Iterator[None]:
    """Puts the arm before the key that an error begins with."""
    try:
        yield
    except (ConfigError, EngineError, PolicyError) as error:
        known = str(error).startswith(f"compare.arms.{arm}.")  # as an error that the arm's own config raised
        raise ConfigError(str(error) if known else f"compare.arms.{arm}.{error}") from error


def branch_config(config: RunConfig, branch: Branch, started: Started, store_root: str) -> RunConfig:
    """The config of one branch. With a budget of seconds, first measures what a prompt costs.

    Raises ConfigError when the seconds are not enough for a batch, or too many for the prompts that exist.
    """
    assert config.compare is not None
    arm = config.arm(branch.arm).model_copy(update={"seed": branch.seed})
    budget = config.compare.budget
    if budget is None or budget.seconds is None:
        return arm
    share, cost = config.compare.share(branch.arm), seconds_per_prompt(arm, started, store_root)
    with _told_of(branch.arm):
        arm = arm.within(share * budget.seconds, cost, "seconds")
    with open_workspace(arm, store_root, "plan") as work:
        _check_prompts(branch.arm, arm, work, started)
    return arm


def seconds_per_prompt(config: RunConfig, started: Started, store_root: str) -> float:
    """Seconds of generate, score and train for one prompt, measured in this process on a few batches.

    The same update is made twice and the second time counts: imports and first-time work are over by then. The policy
    is the base policy, so an arm whose responses grow longer takes longer than planned.
    """
    with open_workspace(config, store_root, "plan") as work:
        available = len(work.prompts(started.prompts, "train"))
    n = min(CALIBRATION_BATCHES * config.training.batch_size, available)
    prompts = {**config.prompts.model_dump(), "per_iteration": n, "shards": 1}
    few = checked({**config.model_dump(), "prompts": prompts, "iterations": 1})
    pipeline = Pipeline(few, store_root, precision=started.precision)
    for _ in range(2):
        pipeline.update(started, started.policy, None, 1)
    return sum(pipeline.seconds[kind] for kind in SPENT) / n


def _check_prompts(name: str, arm: RunConfig, work: Workspace, started: Started) -> None:
    needed, available = arm.prompts.per_iteration, len(work.prompts(started.prompts, "train"))
    if needed > available:
        raise ConfigError(
            f"compare.arms.{name}.prompts.per_iteration: {needed} exceeds the {available} training prompts. "
            "Add prompts, raise iterations, or lower compare.budget or the arm's number of prompts."
        )


def run_in_process(
    config: RunConfig,
    store_root: str,
    *,
    processes: int,
    folder: Path | None = None,
    progress: Progress = silent,
) -> pd.DataFrame:
    """A whole comparison without Metaflow: the figures of CompareFlow, bit for bit, wall times excepted.

    Args:
        config: with a `compare` section.
        store_root: directory of the weights store.
        processes: how many branches run at once, each in a process of its own.
        folder: keeps what is finished, so that a call after an interruption continues. Its files are named after config
            and base policy; empty it when the code has changed.
        progress: called with the number of finished branches.

    Returns:
        The results, as `analysis.tidy` gives them.
    """
    started = _started(config, store_root, folder, processes)
    histories: dict[Branch, pd.DataFrame] = {}
    todo = branches(config)
    context, parent = get_context("spawn"), (os.getpid(),)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=die_with_parent, initargs=parent) as pool:
        futures = {pool.submit(_history, config, branch, started, store_root, folder): branch for branch in todo}
        try:
            for done, future in enumerate(as_completed(futures)):
                histories[futures[future]] = future.result()
                progress(done + 1, len(todo))
        except BaseException:  # also an interrupt: the branches that run end first, no other begins
            pool.shutdown(cancel_futures=True)
            raise
    return analysis.tidy([(branch.arm, branch.seed, histories[branch]) for branch in in_order(config, todo)])


def in_order(config: RunConfig, done: Sequence[Branch]) -> list[Branch]:
    """Branches by arm, then by seed, in the config's order. Raises ValueError for one that is missing or repeated."""
    assert config.compare is not None
    if sorted(map(repr, done)) != sorted(map(repr, branches(config))):
        raise ValueError(f"the branches {list(done)} are not those of the config. Resume from the step branch.")
    arms, seeds = list(config.compare.arms), config.compare.seeds
    return sorted(done, key=lambda branch: (arms.index(branch.arm), seeds.index(branch.seed)))


def remember(work: Workspace, run: str, started: Started, policies: Iterable[Manifest]) -> None:
    """Leaves a note of the files that a finished comparison refers to, for the house-keeping of the store.

    Metaflow's client does not know the runs of a cluster without a metadata service.
    """
    content = {"run": run, "started": asdict(started), "policies": list(policies)}
    work.store.write_note(f"compared-{run.replace('/', '-')}", json.dumps(content))


def _started(config: RunConfig, store_root: str, folder: Path | None, together: int) -> Started:
    alone = config.model_copy(update={"compare": None}).model_dump()
    path = None if folder is None else folder / f"start-{_digest(alone)}.json"
    if path is not None and path.exists():
        return Started(**json.loads(path.read_text()))
    with open_workspace(config, store_root, "start") as work:
        started = start(work, together=together)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(started)))
    return started


def _history(config: RunConfig, branch: Branch, started: Started, store_root: str, folder: Path | None) -> pd.DataFrame:
    """A branch's history; from the folder, where it is kept, if it is there."""
    assert config.compare is not None
    key = [config.arm(branch.arm).model_dump(), config.compare.model_dump(include={"budget"}), asdict(started)]
    path = None if folder is None else folder / f"{branch.arm}-{branch.seed}-{_digest(key)}.parquet"
    if path is not None and path.exists():
        return pd.read_parquet(path)
    own = branch_config(config, branch, started, store_root)
    history = Pipeline(own, store_root, precision=started.precision).run(started)
    if path is not None:
        partial = path.with_suffix(".partial")
        history.to_parquet(partial)
        partial.replace(path)
    return history


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
