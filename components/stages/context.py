"""Where a step works: its config, a scratch folder, and what it takes from the store and puts there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components import prompts as prompt_files
from components.data import rollouts
from components.data.records import Prompt, Rollout, Scored
from components.generation import Sampling
from components.run_config import RunConfig
from components.runtime import buffers, determinism
from components.runtime.progress import Progress, Stopwatch, silent
from components.runtime.scratch import scratch
from components.stages import sampling
from components.store import Manifest, Store, open_store

if TYPE_CHECKING:  # steps that need no model do without torch
    from components.policy.library import PreTrainedModel
    from components.policy.model import Policy

OPTIMIZER_FILE, ANCHOR_FILE = "optimizer.safetensors", "anchor.safetensors"
SHARD_FILE = "shard.jsonl"
FETCHES = 16  # at once


@dataclass(frozen=True)
class Workspace:
    """A step's surroundings; see `open_workspace`."""

    config: RunConfig
    store: Store
    folder: Path  # scratch, gone with the step
    cache: Path  # what the step's processes have fetched; see `Store.view`
    precision: str  # of every forward pass of the run
    threads: int  # compute threads of the step
    progress: Callable[[str], Progress]  # progress of a named piece of work
    kept: list[Manifest] = field(default_factory=list)  # what the step has stored so far
    told: Callable[[], None] = lambda: None  # is called when that grows
    heals: bool = False  # whether a file that is stored already is read, and replaced if it is damaged
    loading: Stopwatch = field(
        default_factory=Stopwatch
    )  # of models, which takes as long however few prompts there are

    def fetch(self, manifest: Manifest) -> Path:
        """The files of a manifest in a folder, only to be read: they may be the store's own.

        A file is checked, and from an object store brought here, once a step.
        """
        return self.store.view(manifest, self.new_folder(), self.cache)

    def fetch_each(self, manifests: Iterable[Manifest]) -> list[Path]:
        """`fetch` for each of them, several at once: of a thousand small files an object store keeps each waiting."""
        with ThreadPoolExecutor(FETCHES) as pool:
            return list(pool.map(self.fetch, manifests))

    def policy(self, manifest: Manifest, *, weights: bool = True) -> Policy:
        """A policy, loaded; without its weights for an engine that reads the files."""
        import torch

        from components.policy import model as policies

        self.use_threads()
        with self.loading.running():
            return policies.load(
                self.fetch(manifest),
                self.config.policy,
                precision=self.precision,
                device=None if weights else torch.device("meta"),
                frozen=self.config.training.lora is not None,
                temperature=self.config.generation.temperature,
                marks=self.config.judge.marks(),
            )

    def without_weights(self, manifest: Manifest) -> PreTrainedModel:
        """The model of a base policy on the meta device; no file with weights is fetched."""
        from components.policy import pretrained

        files = {name: entry for name, entry in manifest.items() if not name.endswith(".safetensors")}
        return pretrained.without_weights(self.fetch(files), code=self.config.policy.trust_remote_code)

    def use_threads(self) -> None:
        """Gives torch the step's `cpu` threads: parallel shards must not fight for the same cores."""
        import torch

        torch.set_num_threads(self.threads)
        gpu = torch.cuda.is_available()
        if not gpu or self.config.deterministic:
            determinism.require(gpu=gpu)
        if not gpu and self.precision == "bf16":  # measured: 17 % of its time for 9 % more memory; of fp32's time 4 %
            buffers.reuse()

    def prompts(self, manifest: Manifest, name: str) -> list[Prompt]:
        """Prompts of one file; `name` is "train", "evaluation" or "shard"."""
        folder = self.fetch({f"{name}.jsonl": manifest[f"{name}.jsonl"]})
        return prompt_files.load(str(folder / f"{name}.jsonl"), split="train", allow_duplicates=True)

    def shards(self, manifests: Iterable[Manifest]) -> list[list[Prompt]]:
        """The prompts of each shard."""
        files = [folder / SHARD_FILE for folder in self.fetch_each(manifests)]
        return [prompt_files.load(str(file), split="train", allow_duplicates=True) for file in files]

    def rollout(self, manifest: Manifest) -> Rollout:
        """A rollout, loaded."""
        return rollouts.load_rollout(self.fetch(manifest) / "rollout.parquet")

    def rewards(self, manifest: Manifest) -> NDArray[np.float64]:
        """What the judge scored the responses to the evaluation prompts, (n, K); NaN where it compares pairs only."""
        return rollouts.load_reward(self.fetch(manifest) / "rollout.parquet", self.config.evaluation.responses)

    def parts(self, manifest: Manifest) -> dict[str, NDArray[np.float64]]:
        """The parts of those scores, each (n, K)."""
        return rollouts.load_parts(self.fetch(manifest) / "rollout.parquet", self.config.evaluation.responses)

    def scored(self, manifests: Sequence[Manifest]) -> Scored:
        """Scored rollouts of all shards, in order, loaded."""
        return rollouts.load_scored(*(folder / "rollout.parquet" for folder in self.fetch_each(manifests)))

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
        """Responses of a policy; see `sampling.generate`."""
        settings, shown = self.config.generation, progress or self.progress("generate responses")
        return sampling.generate(
            policy,
            self.config.generation.engine.keeping(self.store),
            prompts,
            responses=responses,
            sampling=Sampling.of(settings),
            seed=self.config.seed,
            purpose=purpose,
            iteration=iteration,
            progress=self.loading.until_begun(shown) if settings.engine.reads_files else shown,
        )

    def new_folder(self) -> Path:
        """An empty folder of the step's own."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def shared_folder(self, name: str) -> Path:
        """A folder of the step that all its processes on this machine know by its name."""
        folder = self.cache / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, name: str, write: Callable[[Path], object]) -> Manifest:
        """Stores the file that `write` writes."""
        path = self.new_folder() / name
        write(path)
        return self._kept(self.store.put_file(path, check=self.heals))

    def keep_files(self, directory: Path) -> Manifest:
        """Stores every file below a directory."""
        return self._kept(self.store.put(directory, check=self.heals))

    def _kept(self, manifest: Manifest) -> Manifest:
        self.kept.append(manifest)
        self.told()
        return manifest

    def keep_rollout(
        self,
        rollout: Rollout,
        reward: NDArray[np.float64] | None = None,
        parts: rollouts.Parts | None = None,
    ) -> Manifest:
        """Stores a rollout, with what the judge said of its responses if that is known."""
        return self.keep("rollout.parquet", lambda path: rollouts.save_rollout(rollout, path, reward, parts))


@contextmanager
def open_workspace(
    config: RunConfig,
    store_root: str,
    kind: str,
    *,
    precision: str = "fp32",
    progress: Callable[[str], Progress] = lambda _: silent,
    cache: Path | None = None,
) -> Iterator[Workspace]:
    """Workspace of a step of the given kind; `cache` is that of another process of the same step."""
    with scratch(kind) as folder:
        threads = getattr(config.resources, kind).cpu
        found = folder / "cache" if cache is None else cache
        yield Workspace(config, open_store(store_root), folder, found, precision, threads, progress)
