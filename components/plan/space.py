"""The disk that a run needs, in its store and where its steps work: checked before anything is computed."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.errors import ConfigError, StoreError
from components.run_config import RunConfig
from components.store import LocalStore, Manifest, Store

if TYPE_CHECKING:
    from components.policy.library import PreTrainedModel
    from components.policy.model import Policy

FP32 = 4  # bytes
MOMENTS = {"adamw": 8, "rmsprop": 4, "adamw_8bit": 2}  # bytes per trained weight; embeddings' are never in 8 bits
STATES = 2  # saved states of an iteration that trains, until the later one is there
POD_DISK = 10240  # MB, Metaflow's own choice
MB, GB = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Space:
    """Bytes of a run's large files; prompts and rollouts are small beside them."""

    base: int  # the base policy as it is published
    policy: int  # what each iteration's policy adds
    state: int  # its optimiser's state, and an on-policy algorithm's anchor

    @property
    def iteration(self) -> int:
        """What each iteration leaves."""
        return self.policy + self.state

    def stored(self, iterations: int) -> int:
        """In the store at the end; while the last iteration trains, two saved states of it as well."""
        return self.base + (iterations + STATES) * self.iteration

    def scratch(self, *, remote: bool) -> int:
        """Where a step works, at most: training writes a saved state and then its results.

        From an object store, policy, reference and the optimiser's state have come there before.
        """
        return max(self.base, 2 * self.iteration + (self.base + self.iteration if remote else 0))


def of_base(config: RunConfig, base: Policy, folder: Path) -> Space:
    """What a run from this base policy, with its files in `folder`, needs."""
    files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return of_model(config, base.model, files)


def of_model(config: RunConfig, model: PreTrainedModel, files: int) -> Space:
    """The same, of a model whose files have so many bytes; of the model, only the shapes of its weights matter."""
    trained = _trained(config, model)
    state = trained * (MOMENTS[config.training.optimizer] + (FP32 if config.algorithm.on_policy else 0))
    return Space(files, FP32 * trained, state)


def of_origin(base: Manifest, policy: Manifest, optimizer: Manifest) -> Space:
    """What a run that continues from another one's files needs."""
    added = sum(entry["size"] for name, entry in policy.items() if base.get(name) != entry)
    return Space(size(base), added, size(optimizer))


def size(manifest: Manifest) -> int:
    """Bytes of its files."""
    return sum(entry["size"] for entry in manifest.values())


def _trained(config: RunConfig, model: PreTrainedModel) -> int:
    """How many weights are trained."""
    if config.training.lora is None:
        return sum(parameter.numel() for parameter in model.parameters())
    from components.policy import lora

    return sum(rows * columns for _, (rows, columns) in lora.shapes(model, config.training.lora))


def check(config: RunConfig, store: Store, *runs: Space, together: int = 1, in_pod: bool | None = None) -> None:
    """Checks that there is so much for these runs, which have the base and `config.iterations` in common.

    Args:
        config: of the runs.
        store: where all of them keep their files.
        runs: what each needs.
        together: how many of them at most train at the same time, on one disk unless in pods.
        in_pod: whether each step works on a disk of its pod, by default as Metaflow says.

    Raises:
        StoreError: a store or a TMPDIR without so much room.
        ConfigError: pods with too small a disk.
    """
    each = sorted((run.scratch(remote=not isinstance(store, LocalStore)) for run in runs), reverse=True)
    largest, *others = sorted(runs, key=lambda run: run.iteration, reverse=True)
    stored = largest.stored(config.iterations) + config.iterations * sum(run.iteration for run in others)
    stored += STATES * sum(run.iteration for run in others[: together - 1])
    if os.environ.get("METAFLOW_KUBERNETES_WORKLOAD") if in_pod is None else in_pod:
        _check_pod(config, each[0])
        store.check(space=stored)
        return
    scratch, count = sum(each[:together]), min(together, len(each))
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < scratch:
        several = f" of {count} runs at once" if count > 1 else ""
        fewer = ", run fewer at once (--max-workers)" if count > 1 else ""
        raise StoreError(
            f"{folder}: has {free / GB:.1f} GB left, and training{several} needs about {scratch / GB:.1f} GB there. "
            f"Free space{fewer}, or set TMPDIR to a folder elsewhere."
        )
    shared = isinstance(store, LocalStore) and folder.stat().st_dev == Path(store.root).stat().st_dev
    store.check(space=stored + (scratch if shared else 0))


def _check_pod(config: RunConfig, scratch: int) -> None:
    given = config.cluster.pod("train").disk if config.cluster else None
    disk = given or POD_DISK
    if disk * MB < scratch:
        raise ConfigError(
            f"cluster.steps.train.disk: {disk} MB are too few, training needs about {scratch / MB:.0f} MB. "
            "Raise it to more than that."
        )
