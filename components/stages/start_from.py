"""Continuing: a new run that begins with the last good policy of another (`start_from`).

It keeps that run's reference, prompts and precision, counts iterations and adds to `history` where that run stopped,
and refers to its files in the store without copying them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
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
from components.run_config.fields import LATEST
from components.stages import runs
from components.stages.context import ANCHOR_FILE, Workspace
from components.stages.handover import Started
from components.store import Manifest
from components.store.note_kinds import content_of
from components.training import checks

if TYPE_CHECKING:
    import pandas as pd

NOTE = "finished-"  # begins the names of notes of finished runs
HISTORY = "history.parquet"
ARTIFACTS = (
    *("policy", "reference", "optimizer", "prompts", "precision", "evaluated", "evaluated_reference"),
    *("reward_reference", "history", "iteration", "store_root", "config"),
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
        return [*self._differences(work), *self._without_anchor(work.config)]

    def _differences(self, work: Workspace) -> list[str]:
        if lacking := self._lacking(work):
            return [lacking]
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

    def _lacking(self, work: Workspace) -> str:
        """What to do where the run began with another store, whose files did not come with it; else empty.

        A datastore that was moved or copied together with its store is used as it lies now, as by a resume.
        """
        if self.store_root == work.store.root:
            return ""
        try:
            self._require_files(work)
        except BlobError as error:
            return (
                f"start_from: {self.run} keeps its weights in {self.store_root}, this run in {work.store.root}, which "
                f"lacks files of it. Copy {self.store_root} there too, or run on the datastore that stands beside it. "
                f"({error})"
            )
        return ""

    def _require_files(self, work: Workspace) -> None:
        started = self.started
        began = (started.policy, started.prompts, started.evaluated)
        for manifest in (self.policy, self.optimizer, self.evaluated, *began):
            work.store.require(manifest)

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


def find(work: Workspace) -> Origin | None:
    """The run that the config's `start_from` means; None for none.

    "FLOW/RUN" is that run, finished or failed, after its last whole iteration; "latest" the newest finished one that
    this run can continue. Finished runs are found by their notes in the store, also where Metaflow's client does not
    know them.

    Raises RunError for a run that does not exist or has not finished an iteration.
    """
    wanted = work.config.start_from
    if wanted == LATEST:
        return next((origin for origin in _finished(work) if not origin.problems(work)), None)
    if wanted is None:
        return None
    return _read_note(work, _name(wanted)) or of(wanted, runs.last_iteration(wanted, artifacts=ARTIFACTS))


def remember(work: Workspace, origin: Origin) -> None:
    """Leaves a note of how a run ended, for `find` and for the house-keeping of the store."""
    values = {field.name: getattr(origin, field.name) for field in fields(origin)}
    values |= {"started": asdict(origin.started), "history": work.keep(HISTORY, origin.history.to_parquet)}
    work.store.write_note(_name(origin.run), json.dumps(values))


def of(run: str, data: Any) -> Origin:
    """A run as its artifacts, the attributes of `data`, tell."""
    started = Started(
        policy=data.reference,
        prompts=data.prompts,
        evaluated=data.evaluated_reference,
        reward=data.reward_reference,
        precision=data.precision,
    )
    return Origin(
        run=run,
        config=data.config if isinstance(data.config, dict) else data.config.to_dict(),
        store_root=data.store_root,
        started=started,
        policy=data.policy,
        optimizer=data.optimizer,
        evaluated=data.evaluated,
        history=data.history,
        iteration=data.iteration,
    )


def _finished(work: Workspace) -> Iterator[Origin]:
    """The finished runs that the store knows, the newest first."""
    notes = [note for note in work.store.notes() if note.name.startswith(NOTE)]
    for note in sorted(notes, key=lambda note: note.written, reverse=True):
        if (origin := _read_note(work, note.name)) is not None:
            yield origin


def _read_note(work: Workspace, name: str) -> Origin | None:
    import pandas as pd

    values = content_of(work.store, name)
    if values is None:
        return None
    history = pd.read_parquet(work.fetch(values["history"]) / HISTORY)
    return Origin(**{**values, "started": Started(**values["started"]), "history": history})


def _name(run: str) -> str:
    return NOTE + run.replace("/", "-")


def beginning(work: Workspace, origin: Origin | None) -> str:
    """What the run begins with, as a sentence."""
    if origin is not None:
        return f"Continues from {origin.run} after its iteration {origin.iteration}."
    if work.config.start_from == LATEST:
        newest = next(_finished(work), None)
        said = "There is no finished run to continue."
        if newest is not None:
            said = f"No finished run can be continued, the newest not for this:\n{newest.problems(work)[0]}"
        return f"{said}\nBegins with the base policy."
    return "Begins with the base policy."


def _at(config: Mapping[str, Any], key: str) -> Any:
    return reduce(lambda section, part: section[part], key.split("."), config)
