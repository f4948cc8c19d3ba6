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
    from components.policy.model import Policy

FP32 = 4  # bytes
MOMENTS = {"adamw": 8, "rmsprop": 4, "adamw_8bit": 2}  # bytes per trained weight; embeddings' are never in 8 bits
POD_DISK = 10240  # MB, Metaflow's own choice
MB, GB = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Space:
    """Bytes of a run's large files; prompts and rollouts are small beside them."""

    base: int  # the base policy as it is published
    policy: int  # what each iteration's policy adds
    state: int  # its optimiser's state, and an on-policy algorithm's anchor

    def stored(self, iterations: int) -> int:
        """In the store at the end; while the last iteration trains, two saved states of it as well."""
        return self.base + (iterations + 2) * (self.policy + self.state)

    def scratch(self, *, remote: bool) -> int:
        """Where a step works, at most: training writes a saved state and then its results.

        From an object store, policy, reference and the optimiser's state have come there before.
        """
        written = 2 * (self.policy + self.state)
        return max(self.base, written + (self.base + self.policy + self.state if remote else 0))


def of_base(config: RunConfig, base: Policy, folder: Path) -> Space:
    """What a run from this base policy, with its files in `folder`, needs."""
    trained = FP32 * _trained(config, base, folder)
    anchor = trained if config.algorithm.on_policy else 0
    state = trained // FP32 * MOMENTS[config.training.optimizer] + anchor
    return Space(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), trained, state)


def of_origin(base: Manifest, policy: Manifest, optimizer: Manifest) -> Space:
    """What a run that continues from another one's files needs."""
    added = sum(entry["size"] for name, entry in policy.items() if base.get(name) != entry)
    return Space(_size(base), added, _size(optimizer))


def _size(manifest: Manifest) -> int:
    return sum(entry["size"] for entry in manifest.values())


def _trained(config: RunConfig, base: Policy, folder: Path) -> int:
    """How many weights are trained."""
    if config.training.lora is None:
        return sum(parameter.numel() for parameter in base.model.parameters())
    from components.policy import lora
    from components.policy.pretrained import without_weights

    bare = without_weights(folder, code=config.policy.trust_remote_code)
    lora.add(bare, config.training.lora, seed=0)
    return sum(weight.numel() for weight in lora.weights(bare).values())


def check(config: RunConfig, store: Store, space: Space, *, in_pod: bool | None = None) -> None:
    """Checks that there is so much; `in_pod` if each step works on a disk of its pod, by default as Metaflow says.

    Raises StoreError for a store or a TMPDIR without so much room, ConfigError for pods with too small a disk.
    """
    scratch = space.scratch(remote=not isinstance(store, LocalStore))
    branches = len(config.compare.arms) * len(config.compare.seeds) if config.compare else 1
    stored = space.stored(config.iterations * branches)
    if os.environ.get("METAFLOW_KUBERNETES_WORKLOAD") if in_pod is None else in_pod:
        _check_pod(config, scratch)
        store.check(space=stored)
        return
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < scratch:
        raise StoreError(
            f"{folder}: has {free / GB:.1f} GB left, and training needs about {scratch / GB:.1f} GB there. Free space, "
            "or set TMPDIR to a folder elsewhere."
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
