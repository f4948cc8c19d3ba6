"""What WIND's flows share: the config, a step's workspace, and how a run ends in the terminal."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaflow import Config, FlowMutator, FlowSpec, Parameter, card, config_expr, current
from metaflow.exception import MetaflowException
from metaflow.util import get_username

import standing
from components.config.errors import BlobError, ConfigError, StoreError, UserError
from components.config.schema import validated
from components.plan.splitting import loading
from components.reporting import commands
from components.reporting.cards import StepProgress, show_place
from components.run_config import RunConfig, parse
from components.runtime import gpus
from components.runtime.heartbeat import Heartbeat
from components.runtime.reports import Reporter
from components.runtime.terminal import visible
from components.stages.context import Workspace, open_workspace
from components.store import Manifest, open_store, store_root
from components.store.references import manifests
from components.store.task_notes import STORED, Task, noted
from launcher import LAUNCHER

# Metaflow refuses to run as an unnamed user or as root, which is all that many containers have.
if get_username() is None:
    os.environ["USERNAME"] = "wind"

CONFIGS = Path(__file__).parent / "configs"
# Between updates of a live card. Each is a process that may take a core for some five seconds (a fraction of one where
# it is a fork, see warm.py), and two threads of a training fall far behind where a third wants their cores.
CARD_SECONDS = 60


class _Told(MetaflowException):
    """An error whose control codes the terminal does not heed."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class BadConfig(_Told):
    """A config that cannot be run."""

    headline = "The config cannot be run"


class BadRun(_Told):
    """What a user can put right, as Metaflow prints it: no traceback."""

    headline = "The step cannot be run"


def parse_config(text: str) -> dict[str, Any]:
    """`components.run_config.parse` with its error as Metaflow prints it: no traceback."""
    try:
        return parse(text)
    except UserError as error:
        raise BadConfig(str(error)) from error


def parse_run(text: str) -> dict[str, Any]:
    """The config of one run."""
    values = parse_config(text)
    if values["compare"] is not None:
        raise BadConfig("compare: is not for this flow. Run flows/compare_flow.py, or remove the section.")
    return values


def parse_comparison(text: str) -> dict[str, Any]:
    """The config of a comparison."""
    values = parse_config(text)
    if values["compare"] is None:
        raise BadConfig(
            "compare: is required. Name what to compare, such as `compare: {arms: {wind: {}, dpo: {algorithm: "
            "{name: dpo}}}}`, or run flows/wind_flow.py."
        )
    return values


def config_file(preset: str, parser: Callable[[str], dict[str, Any]]) -> Any:
    """A flow's `config`, with the preset of flows/configs that it runs by default."""
    return Config("config", default=str(CONFIGS / preset), parser=parser, help="YAML file of the run")


class LiveCards(FlowMutator):
    """Flow decorator: gives the steps that the config names in `live_cards` a card with a progress bar."""

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Adds `@card(id="progress")`; above `@unroll`, so that the copies get it and no step of a base class."""
        chosen = dict(mutable_flow.configs)["config"]["live_cards"]
        for name, step in mutable_flow.steps:
            if commands.kind_of(name) in chosen:
                options = {"type": "blank", "id": "progress", "refresh_interval": CARD_SECONDS}
                step.add_decorator(card, deco_kwargs=options)


class AlignmentFlow(FlowSpec):
    """Base of the flows that align a policy."""

    config: Any  # see `config_file`; each flow has a preset of its own
    seed = Parameter("seed", type=int, default=config_expr("config.seed"), help="instead of the config's seed")

    @property
    def settings(self) -> RunConfig:
        """The run's config; `--seed` has the last word on the seed."""
        values = self.config if isinstance(self.config, dict) else self.config.to_dict()
        with told_plainly():
            return validated(RunConfig, {**values, "seed": self.seed})

    def remember_store(self) -> None:
        """Notes where the weights store is, next to the run's own datastore, and checks it."""
        self.store_root = self._store_root()
        open_store(self.store_root).check()

    def follow_store(self) -> None:
        """Turns to the store of the datastore that this task has, which was moved or copied if it is not `start`'s.

        Raises StoreError if the files of the run did not come with it: nothing goes to the old place unasked.
        """
        root, before = self._store_root(), self.store_root
        if root == before:
            return
        store = open_store(root)
        try:
            for manifest in manifests(self.manifests_at_hand()):
                store.require(manifest)
        except BlobError as error:
            raise StoreError(
                f"{root}: the weights store of this datastore lacks files of the run, which began with {before}. "
                f"Copy {before} to {root} too, or resume in the datastore that stands beside it. ({error})"
            ) from error
        self.store_root = root

    def _store_root(self) -> str:
        datastore = self._datastore  # Metaflow has no public name for the datastore of a running task
        return store_root(datastore.TYPE, datastore._storage_impl.datastore_root)

    def manifests_at_hand(self) -> dict[str, list[Manifest]]:
        """The manifests in the task's artifacts, by name; tables and the like are not loaded."""
        stored = self._datastore
        names = [name for name, _ in stored.items() if _may_hold_manifests(stored._info[name]["type"])]
        names += [name for name, value in vars(self).items() if _may_hold_manifests(str(type(value)))]
        public = [name for name in dict.fromkeys(names) if not name.startswith("_")]
        found = {name: list(manifests(getattr(self, name))) for name in public}
        return {name: those for name, those in found.items() if those}

    def _task(self) -> Task:
        launcher, origin = os.environ.get(LAUNCHER), current.origin_run_id
        return Task(
            run=f"{current.flow_name}/{current.run_id}",
            name=f"{current.step_name}/{current.task_id}",
            origin=f"{current.flow_name}/{origin}" if origin else None,
            launcher=int(launcher) if launcher else None,
        )

    def tell(self, kind: str) -> Reporter:
        """Tells the terminal where a task of this kind stands; what tells it more."""
        reporter = Reporter(f"{current.step_name}/{current.task_id}")
        standing.tell(self, kind, self.settings, reporter)
        return reporter

    @contextmanager
    def work(self, kind: str, *, runs_model: bool = True) -> Iterator[Workspace]:
        """Workspace of a step of this kind, with progress in terminal and card.

        `runs_model` is False for one that would run a model and does not this time. Notes its wall time, less that of
        imports and of waiting for a GPU, which are no algorithm's.
        """
        with told_plainly():
            yield from self._work(kind, runs_model)

    def _work(self, kind: str, runs_model: bool) -> Iterator[Workspace]:
        settings = self.settings
        self.follow_store()
        files = self.manifests_at_hand()
        live = current.card["progress"] if kind in settings.live_cards else None
        if live is not None:
            show_place(live, standing.card_text(self, kind, settings))
        reporter = self.tell(kind)
        with (
            Heartbeat(kind) as heartbeat,
            open_workspace(
                settings,
                self.store_root,
                kind,
                precision=getattr(self, "precision", "fp32"),
                progress=lambda description: StepProgress(description, live, heard=heartbeat.heard, reporter=reporter),
            ) as workspace,
            # Noted before it waits for a GPU, and that may take days.
            noted(workspace.store, self._task(), lambda: {**files, STORED: workspace.kept}) as tell,
            _model_ready(settings, kind) if runs_model else nullcontext(),
        ):
            begin = time.perf_counter()
            # A resumed run heals: what an earlier one stored may have been damaged since.
            yield replace(workspace, told=tell, heals=current.origin_run_id is not None)
            took = {kind: time.perf_counter() - begin, loading(kind): workspace.loading.seconds}
            self.seconds = {**getattr(self, "seconds", {}), **took}


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turns a UserError into one that Metaflow prints without a traceback; says so where the config is at fault."""
    try:
        yield
    except ConfigError as error:
        raise BadConfig(str(error)) from error
    except UserError as error:
        raise BadRun(str(error)) from error


def _may_hold_manifests(kind: str) -> bool:
    """Whether a value of this type, as `str` gives it, may be or hold a manifest."""
    return kind.startswith("<class 'components.") or kind in [str(known) for known in (dict, list, tuple)]


@contextmanager
def _model_ready(settings: RunConfig, kind: str) -> Iterator[None]:
    """GPUs of its own for a step that runs a model, and the imports that it needs."""
    if not settings.runs_model(kind):
        yield
        return
    with gpus.claim(gpus.visible(), settings.num_gpus(kind)):
        importlib.import_module("components.training.on_policy")
        yield
