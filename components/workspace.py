"""Where a step works: its config, a scratch folder, and what it takes from the store and puts there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components import prompts as prompt_files
from components import rollouts
from components.config import RunConfig
from components.generation import Sampling
from components.progress import Progress, silent
from components.records import Prompt, Rollout, Scored
from components.store import Manifest, Store, open_store

if TYPE_CHECKING:  # steps that need no model do without torch
    from components.policy import Policy

OPTIMIZER_FILE, ANCHOR_FILE = "optimizer.safetensors", "anchor.safetensors"


@dataclass(frozen=True)
class Workspace:
    """A step's surroundings; see `open_workspace`."""

    config: RunConfig
    store: Store
    folder: Path  # scratch, gone with the step
    precision: str  # of every forward pass of the run
    threads: int  # compute threads of the step
    progress: Callable[[str], Progress]  # progress of a named piece of work

    def fetch(self, manifest: Manifest) -> Path:
        """The files of a manifest, copied into a new folder."""
        return self.store.get(manifest, self.new_folder())

    def policy(self, manifest: Manifest, *, weights: bool = True) -> Policy:
        """A policy, loaded; without its weights for an engine that reads the files."""
        import torch

        from components import policy

        self.use_threads()
        return policy.load(
            self.fetch(manifest),
            self.config.policy,
            precision=self.precision,
            device=None if weights else torch.device("meta"),
            frozen=self.config.training.lora is not None,
            temperature=self.config.generation.temperature,
        )

    def use_threads(self) -> None:
        """Gives torch the step's `cpu` threads: parallel shards must not fight for the same cores."""
        import torch

        torch.set_num_threads(self.threads)

    def prompts(self, manifest: Manifest, name: str) -> list[Prompt]:
        """Prompts of one file; `name` is "train", "evaluation" or "shard"."""
        folder = self.fetch({f"{name}.jsonl": manifest[f"{name}.jsonl"]})
        return prompt_files.load(str(folder / f"{name}.jsonl"), split="train", allow_duplicates=True)

    def rollout(self, manifest: Manifest) -> Rollout:
        """A rollout, loaded."""
        return rollouts.load_rollout(self.fetch(manifest) / "rollout.parquet")

    def rewards(self, manifest: Manifest) -> NDArray[np.float64]:
        """What the judge scored the responses to the evaluation prompts, (n, K); NaN where it compares pairs only."""
        return rollouts.load_reward(self.fetch(manifest) / "rollout.parquet", self.config.evaluation.responses)

    def scored(self, manifests: Sequence[Manifest]) -> Scored:
        """Scored rollouts of all shards, in order, loaded."""
        return rollouts.load_scored(*(self.fetch(manifest) / "rollout.parquet" for manifest in manifests))

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        *,
        responses: int,
        purpose: str,
        iteration: int,
        progress: Progress | None = None,
    ) -> Rollout:
        """Responses of a policy; see `rollouts.generate`."""
        settings = self.config.generation
        return rollouts.generate(
            policy,
            self.config.build_engine(),
            prompts,
            responses=responses,
            sampling=Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
            seed=self.config.seed,
            purpose=purpose,
            iteration=iteration,
            progress=progress or self.progress("generate responses"),
        )

    def new_folder(self) -> Path:
        """An empty folder of the step's own."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def keep(self, name: str, write: Callable[[Path], object]) -> Manifest:
        """Stores the file that `write` writes."""
        path = self.new_folder() / name
        write(path)
        return self.store.put_file(path)

    def keep_rollout(self, rollout: Rollout, reward: NDArray[np.float64] | None = None) -> Manifest:
        """Stores a rollout, with what the judge scored its responses if that is known."""
        return self.keep("rollout.parquet", lambda path: rollouts.save_rollout(rollout, path, reward))


@contextmanager
def open_workspace(
    config: RunConfig,
    store_root: str,
    kind: str,
    *,
    precision: str = "fp32",
    progress: Callable[[str], Progress] = lambda _: silent,
) -> Iterator[Workspace]:
    """Workspace of a step of the given kind."""
    with tempfile.TemporaryDirectory(prefix=f"wind-{kind}-") as folder:
        threads = getattr(config.resources, kind).cpu
        yield Workspace(config, open_store(store_root), Path(folder), precision, threads, progress)
