"""Benchmarks of a policy, such as GSM8K, by EleutherAI's lm-evaluation-harness: `pip install -r requirements-eval.txt`.

As lm-eval runs them: with a task's own number of examples in the prompt, and without the chat template.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.config import extras
from components.config.errors import UserError
from components.config.paths import user_path
from components.config.sections import EvaluationConfig
from components.store import Store
from components.store.note_kinds import content_of

if TYPE_CHECKING:
    from components.policy.model import Policy

NOTE = "benchmarks-"  # begins the names of notes


class BenchmarkError(UserError):
    """A benchmark that cannot be run."""


@dataclass(frozen=True)
class Score:
    """What a policy reaches in a task."""

    task: str
    metric: str  # as lm-eval names it, with its filter, such as "exact_match,strict-match"
    value: float


def check(settings: EvaluationConfig) -> None:
    """Raises BenchmarkError when lm-eval is needed and not installed, or does not know a task."""
    if not settings.tasks:
        return
    if importlib.util.find_spec("lm_eval") is None:
        raise BenchmarkError(
            f"evaluation.tasks: lm-eval is not installed. Run {extras.install('eval')}, or remove the tasks."
        )
    folder = _folder(settings)
    if folder is not None and not folder.is_dir():
        raise BenchmarkError(f"evaluation.tasks_path: {settings.tasks_path} is no directory. Correct the path.")
    known = set(_manager(folder).all_tasks)
    if unknown := [name for name, _ in map(parted, settings.tasks) if name not in known]:
        raise BenchmarkError(
            f"evaluation.tasks: lm-eval knows no {unknown[0]!r}. `lm-eval ls tasks` lists what it knows; files of your "
            "own belong into evaluation.tasks_path."
        )


def parted(task: str) -> tuple[str, str | None]:
    """Name and, if it is given, metric of a task as the config has it: `gsm8k:exact_match,flexible-extract`."""
    name, _, metric = task.partition(":")
    return name, metric or None


def run(policy: Policy, settings: EvaluationConfig) -> list[Score]:
    """Scores of a policy in the config's tasks. Raises BenchmarkError for a metric that a task does not have."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = HFLM(
        pretrained=policy.model,
        tokenizer=policy.tokenizer,
        batch_size=settings.tasks_batch_size,
        mixed_precision_dtype="bfloat16" if policy.precision == "bf16" else None,
    )
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=[name for name, _ in map(parted, settings.tasks)],
        task_manager=_manager(_folder(settings)),
        limit=settings.tasks_limit,
        bootstrap_iters=0,
        log_samples=False,
    )
    return [_score(results["results"], *parted(task)) for task in settings.tasks]


def _score(results: dict[str, dict[str, Any]], name: str, metric: str | None) -> Score:
    """The metric that is asked for; else acc_norm if there is one, else the first that the task lists."""
    if name not in results:
        raise BenchmarkError(f"evaluation.tasks: {name} has no score of its own. Name its tasks: {', '.join(results)}.")
    found = {key: value for key, value in results[name].items() if "," in key and "_stderr," not in key}
    # A metric without its filter stands for the first one.
    short = {key.partition(",")[0]: key for key in reversed(found)}
    wanted = metric or short.get("acc_norm") or next(iter(found))
    key = short.get(wanted, wanted)
    if key not in found:
        raise BenchmarkError(f"evaluation.tasks: {name} has no metric {metric!r}. Choose from {', '.join(found)}.")
    return Score(name, key.removesuffix(",none"), float(found[key]))


def once(store: Store, policy: object, settings: EvaluationConfig, score: Callable[[], list[Score]]) -> list[Score]:
    """Scores that a note in the store has, or else `score` finds out: those of the reference serve every iteration.

    `policy` is plain data that tells policies apart.
    """
    name = NOTE + _digest(policy, settings)
    note = content_of(store, name)
    if note is not None:
        return [Score(**values) for values in note["scores"]]
    scores = score()
    store.write_note(name, json.dumps({"scores": [asdict(one) for one in scores]}))
    return scores


def _folder(settings: EvaluationConfig) -> Path | None:
    given = settings.tasks_path
    return None if given is None else user_path(given, "evaluation.tasks_path", BenchmarkError)


def _digest(policy: object, settings: EvaluationConfig) -> str:
    """Of all that a score depends on; the device's rounding aside."""
    import lm_eval

    tasks = settings.model_dump(include={"tasks", "tasks_limit", "tasks_batch_size"})
    digest = hashlib.sha256(json.dumps([policy, tasks, lm_eval.__version__], sort_keys=True).encode())
    folder = _folder(settings)
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.is_file():
            digest.update(f"\n{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache  # it reads some ten thousand files
def _manager(folder: Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if folder is None else str(folder))
