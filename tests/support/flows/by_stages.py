"""What a run of WindFlow has to end with, from its stages in one process: no flow, no tasks, no failure."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from components import stages
from components.run_config import checked
from support.stages import iterations, start


def undisturbed(config: dict[str, Any], root: Path) -> SimpleNamespace:
    """The artifacts of `config`'s run, its files in the weights store at `root`.

    In a process of its own: torch cannot be imported here any more once a Runner has imported typeguard.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return SimpleNamespace(**alone.submit(_artifacts, config, str(root)).result())


def _artifacts(config: dict[str, Any], root: str) -> dict[str, Any]:
    run = start(checked(config), root)
    *_, last = iterations(run)
    began, evaluated = run.started, last.evaluated.rollout
    with run.work("end") as work:
        examples = stages.examples(work, began.prompts, began.evaluated, evaluated)
    return {
        "store_root": run.root,
        "reference": began.policy,
        "prompts": began.prompts,
        "evaluated_reference": began.evaluated,
        "policy": last.trained.policy,
        "optimizer": last.trained.optimizer,
        "evaluated": evaluated,
        "rollouts": last.scored,
        "counts": {**last.counts, **last.trained.counts},
        "history": last.history,
        "examples": examples,
    }
