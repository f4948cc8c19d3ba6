"""Where another run stood when it ended, and whether a run can continue from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components import prompts
from components.config import registry
from components.config.errors import BlobError, ConfigError
from components.config.marks import Kept, marked
from components.config.sections import GenerationConfig, PolicyConfig, TrainingConfig
from components.evaluation import groups
from components.judges import Judge
from components.plan import space
from components.prompts.config import PromptsConfig
from components.run_config import RunConfig
from components.stages.context import ANCHOR_FILE, Workspace
from components.stages.handover import Started
from components.store import Manifest
from components.training import checks

if TYPE_CHECKING:
    import pandas as pd

HISTORY = "history.parquet"


@dataclass(frozen=True)
class Origin:
    """Where another run stood after its last whole iteration."""

    run: str  # FLOW/RUN
    config: dict[str, Any]
    store_root: str
    started: Started  # what the origin itself began with: reference, prompts and what they brought
    policy: Manifest
    optimizer: Manifest
    evaluated: Manifest  # the policy's responses to the evaluation prompts
    history: pd.DataFrame | None  # None only where it is still to be read
    iteration: int
    history_file: Manifest | None = None  # what `history` is still to be read from

    def check(self, work: Workspace) -> None:
        """Checks that the run of `work` can continue from here.

        Raises ConfigError for another store without the origin's files, and for settings that must be equal and are
        not; BlobError for a file that is missing from the store.
        """
        if problems := self.problems(work):
            raise ConfigError("\n".join(problems))
        self._require_files(work)

    def begin(self, work: Workspace) -> Started:
        """What the run of `work` takes from here instead of making it, checked as far as its config may differ.

        Raises UserError as `check`, and for a disk, prompts or a model that do not suffice for what the config asks.
        """
        self.check(work)
        config, started = work.config, self.started
        checks.check(config.training, work.without_weights(started.policy))
        space.check(config, work.store, space.of_origin(started.policy, self.policy, self.optimizer))
        train = work.prompts(started.prompts, "train")
        prompts.choose(train, per_iteration=config.prompts.per_iteration, iteration=1, seed=config.seed)
        groups.split(work.prompts(started.prompts, "evaluation"), config.evaluation.group_by)
        return started

    def problems(self, work: Workspace) -> list[str]:
        """Why the run of `work` cannot continue from here, a sentence each."""
        if self.store_root != work.store.root and (lacking := self.lacks(work)):
            return [lacking]
        return [*self._differences(work), *self._without_anchor(work.config)]

    def _differences(self, work: Workspace) -> list[str]:
        ours = work.config.model_dump()
        # An older run's config lacks what was added since, and the run had what is the default now.
        sections = {
            **{"policy": PolicyConfig(), "prompts": PromptsConfig()},
            **{"generation": GenerationConfig(), "training": TrainingConfig()},
        }
        theirs = self.config | {name: s.model_dump() | self.config[name] for name, s in sections.items()}
        ours["judge"], theirs["judge"] = (_deciding(config["judge"]) for config in (ours, theirs))
        return [
            f"{key}: is {_at(ours, key)!r}, and was {_at(theirs, key)!r} in {self.run}. Runs that continue keep it."
            for key in marked(RunConfig, Kept)
            if _at(ours, key) != _at(theirs, key)
        ]

    def lacks(self, work: Workspace) -> str:
        """Which of its files the store of `work` does not have whole, and what to do; empty if it has all.

        A datastore that was moved or copied together with its store is used as it lies now, as by a resume.
        """
        try:
            self._require_files(work)
        except BlobError as error:
            if self.store_root == work.store.root:
                return str(error)
            return (
                f"start_from: {self.run} keeps its weights in {self.store_root}, this run in {work.store.root}, which "
                f"lacks files of it. Copy {self.store_root} there too, or run on the datastore that stands beside it. "
                f"({error})"
            )
        return ""

    def _require_files(self, work: Workspace) -> None:
        started = self.started
        began = (started.policy, started.prompts, started.evaluated)
        for manifest in filter(None, (self.policy, self.optimizer, self.evaluated, *began, self.history_file)):
            work.store.require(manifest)

    def with_history(self, work: Workspace) -> Origin:
        """The same with its `history`. Raises UserError where the run of `work` cannot continue from it."""
        import pandas as pd

        if self.history_file is None:
            return self
        self.check(work)
        history = pd.read_parquet(work.fetch(self.history_file) / HISTORY)
        return replace(self, history=history, history_file=None)

    def _without_anchor(self, config: RunConfig) -> list[str]:
        if not config.algorithm.on_policy or ANCHOR_FILE in self.optimizer:
            return []
        return [
            f"algorithm.name: {config.algorithm.name} continues with an anchor, and {self.run} has none: it ran "
            f"{self.config['algorithm']['name']}. Continue with that, or begin anew without start_from."
        ]


def _deciding(judge: dict[str, Any]) -> dict[str, Any]:
    """What decides a judge's verdicts, with defaults of what was added since; everything, of a judge not known now."""
    try:
        return registry.build("judges", judge, Judge).deciding()
    except (ConfigError, ValidationError):
        return judge


def _at(config: Mapping[str, Any], key: str) -> Any:
    return reduce(lambda section, part: section[part], key.split("."), config)
