"""Going on: a new run that begins with the last good policy of another (`start_from`).

It keeps that run's reference, prompts and precision, counts iterations and adds to `history` where that run stopped,
and refers to its files in the store without copying them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from components import runs
from components.algorithms import OnPolicyAlgorithm
from components.config import RunConfig
from components.errors import ConfigError
from components.preparation import Started
from components.store import Manifest
from components.workspace import ANCHOR_FILE, Workspace

if TYPE_CHECKING:
    import pandas as pd

ARTIFACTS = (
    *("policy", "reference", "optimizer", "prompts", "precision", "evaluated", "evaluated_reference"),
    *("reward_reference", "history", "iteration", "store_root", "config"),
)
# What gives the rows of `history` their meaning, so both runs must agree on it.
SAME = (
    *("demo", "policy", "prompts.train", "prompts.evaluation", "prompts.split", "prompts.held_out", "judge"),
    *("evaluation.responses", "generation.max_new_tokens", "generation.temperature", "generation.top_p"),
)


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
    history: pd.DataFrame
    iteration: int

    def check(self, work: Workspace) -> None:
        """Checks that the run of `work` can go on from here.

        Raises ConfigError for another store and for settings that must be equal and are not; BlobError for a file that
        is missing from the store.
        """
        if problems := [*self._differences(work), *self._without_anchor(work.config)]:
            raise ConfigError("\n".join(problems))
        started = self.started
        for manifest in (self.policy, self.optimizer, self.evaluated, started.policy, started.prompts):
            work.store.require(manifest)

    def _differences(self, work: Workspace) -> list[str]:
        if self.store_root != work.store.root:
            return [
                f"start_from: {self.run} keeps its weights in {self.store_root}, this run in {work.store.root}. "
                f"Run on the datastore of {self.run}."
            ]
        ours = work.config.model_dump()
        return [
            f"{key}: is {_at(ours, key)!r}, and was {_at(self.config, key)!r} in {self.run}. Runs that go on keep it."
            for key in SAME
            if _at(ours, key) != _at(self.config, key)
        ]

    def _without_anchor(self, config: RunConfig) -> list[str]:
        if not isinstance(config.build_algorithm(), OnPolicyAlgorithm) or ANCHOR_FILE in self.optimizer:
            return []
        return [
            f"algorithm.name: {config.algorithm['name']} goes on with an anchor, and {self.run} has none: it ran "
            f"{self.config['algorithm']['name']}. Go on with that, or begin anew without start_from."
        ]


def find(pathspec: str) -> Origin:
    """The run `pathspec`, "FLOW/RUN", finished or failed, as it was after its last whole iteration.

    Raises RunError for a run that does not exist or has not finished an iteration.
    """
    data = runs.last_iteration(pathspec, artifacts=ARTIFACTS)
    started = Started(
        policy=data.reference,
        prompts=data.prompts,
        evaluated=data.evaluated_reference,
        reward=data.reward_reference,
        precision=data.precision,
    )
    return Origin(
        run=pathspec,
        config=data.config if isinstance(data.config, dict) else data.config.to_dict(),
        store_root=data.store_root,
        started=started,
        policy=data.policy,
        optimizer=data.optimizer,
        evaluated=data.evaluated,
        history=data.history,
        iteration=data.iteration,
    )


def _at(config: Mapping[str, Any], key: str) -> Any:
    return reduce(lambda section, part: section[part], key.split("."), config)
