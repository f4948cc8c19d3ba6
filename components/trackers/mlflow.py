"""MLflow: a server, or a database in a file beside the weights, `mlflow ui --backend-store-uri sqlite:///FILE`."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from components.trackers import Name, Row, TrackedRun, Tracker, TrackerError, client, place, reason
from components.trackers._mlflow_address import check_file, shown, usable, without_secret

TAG = "wind.run"  # by which a run is found again
MOST_PARAMETERS, MOST_METRICS = 100, 1000  # that MLflow takes in one request
WHOLE = "iteration"  # of an iteration's figures in the last request
LONGEST = 250  # characters of a metric's name
LONGEST_EXPERIMENT = 500  # characters
# A server that is away costs a step seconds, not minutes; what the environment says counts.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

DATABASE_ERRORS = (("sqlalchemy.exc", "SQLAlchemyError"), ("alembic.util.exc", "CommandError"))


class Mlflow(Tracker):
    """Sends figures to an MLflow server, or into a database in a file."""

    name: Literal["mlflow"] = "mlflow"
    experiment: Name = Field("wind", description="made if it is new")
    tracking_uri: str | None = Field(
        None, description="absent: MLFLOW_TRACKING_URI, or sqlite:///…/trackers/mlflow.db beside the weights"
    )

    @field_validator("tracking_uri")
    @classmethod
    def _can_be_kept(cls, uri: str | None) -> str | None:
        return None if uri is None else without_secret(usable(uri))

    @field_validator("experiment")
    @classmethod
    def _is_taken(cls, name: str) -> str:
        if len(name) > LONGEST_EXPERIMENT:
            raise ValueError(f"{len(name)} characters are more than MLflow takes. Use {LONGEST_EXPERIMENT} or fewer.")
        return name

    def check(self, folder: Path | None) -> None:
        """Makes the experiment if it is new; see `Tracker`."""
        client("mlflow", self.name)
        uri = self._uri(folder)
        local = uri.startswith("sqlite")
        if local:
            client("sqlalchemy", self.name)
            client("alembic", self.name)
            check_file(uri)
        try:
            self._experiment(self._client(folder))
        except ImportError as error:
            raise TrackerError(
                f"tracking_uri: {shown(uri)!r} needs a package that cannot be used ({reason(error)}). Install the "
                "database's driver, or name another database or a server."
            ) from error
        except self.failures() as error:
            remedy = "Restore the database, or name another" if local else "Correct it, or start the server"
            raise TrackerError(f"tracking_uri: {shown(uri)!r} cannot be used ({reason(error)}). {remedy}.") from error

    def failures(self) -> tuple[type[Exception], ...]:
        """See `Tracker`."""
        # What was not imported was not raised: a server needs neither.
        of_database = [getattr(sys.modules[module], name) for module, name in DATABASE_ERRORS if module in sys.modules]
        return (client("mlflow.exceptions", self.name).MlflowException, *of_database, OSError)

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str:
        """A metric for each figure, a parameter for each setting; the run ends with its last iteration."""
        entities = client("mlflow.entities", self.name)
        mlflow = self._client(run.folder)
        experiment = self._experiment(mlflow)
        found = mlflow.search_runs([experiment], f"tags.`{TAG}` = '{run.name}'", max_results=1)
        opened = found[0] if found else mlflow.create_run(experiment, run_name=run.name, tags={TAG: run.name})
        key = opened.info.run_id
        if not rows:
            settings = [entities.Param(entity(name), str(value)) for name, value in run.settings.items()]
            for some in _parts(settings, MOST_PARAMETERS):
                mlflow.log_batch(key, params=some)
        known = {metric.step for metric in mlflow.get_metric_history(key, WHOLE)}
        now = int(time.time() * 1000)
        for row in rows:
            if row.iteration not in known:
                figures = sorted(row.figures.items(), key=lambda figure: figure[0] == WHOLE)
                metrics = [entities.Metric(entity(name), value, now, row.iteration) for name, value in figures]
                for some in _parts(metrics, MOST_METRICS):
                    mlflow.log_batch(key, metrics=some)
        if run.over:
            mlflow.set_terminated(key)
        uri = shown(self._uri(run.folder))
        return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{key}" if uri.startswith("http") else uri

    def _uri(self, folder: Path | None) -> str:
        given = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if given:
            try:
                return usable(given)
            except ValueError as error:  # of the environment
                raise TrackerError(f"tracking_uri: MLFLOW_TRACKING_URI {error}") from error
        if folder is None:
            raise TrackerError(
                "tracking_uri: is required, as the weights lie in an object store and a task's own disk may go with "
                "it. Name a server, here or in MLFLOW_TRACKING_URI."
            )
        return f"sqlite:///{place(None, folder, 'mlflow.db').absolute()}"

    def _client(self, folder: Path | None) -> Any:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        uri = self._uri(folder)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return client("mlflow", self.name).MlflowClient(uri)

    def _experiment(self, mlflow: Any) -> str:
        found = mlflow.get_experiment_by_name(self.experiment)
        return str(found.experiment_id if found else mlflow.create_experiment(self.experiment))


def entity(name: str) -> str:
    """A column or key as a name that MLflow takes: `win_rate[a b]` as `win_rate/a b`, other signs as `.3f.`."""
    base, _, group = name.removesuffix("]").partition("[")
    parts = [re.sub(r"[^\w.\- ]", _code, base)] + ([re.sub(r"[^\w\- ]", _code, group)] if group else [])
    taken = "/".join(parts)
    if len(taken) <= LONGEST:
        return taken
    digest = hashlib.sha256(taken.encode()).hexdigest()[:12]
    return f"{taken[: LONGEST - len(digest) - 1]}-{digest}"


def _parts(everything: list[Any], size: int) -> Iterator[list[Any]]:
    for begin in range(0, len(everything), size):
        yield everything[begin : begin + size]


def _code(sign: re.Match[str]) -> str:
    return f".{ord(sign[0]):x}."
