"""Each tracker with its real client, offline or in a file, read back by that client."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from tracked import ADDRESSES, FIGURES, FOLDERS, RUN, config, history, needs, run

from components.stages import tracking
from components.trackers import TrackerError
from components.trackers.mlflow import entity

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where clients keep what they keep of a user; Trackio reads it when it is imported."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ADDRESSES:
            patch.delenv(name, raising=False)
        for name in FOLDERS:
            patch.setenv(name, str(folder))
        yield folder


@pytest.fixture
def root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a store."""
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "store")


@needs("tensorboard")
def test_tensorboard(root: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = run(root, config(name="tensorboard"))
    assert folder == str(tmp_path / "store" / "trackers" / "tensorboard" / "WindFlow-17")
    events = EventAccumulator(folder).Reload()
    assert set(events.Tags()["scalars"]) == {"iteration", *FIGURES}
    for name, values in FIGURES.items():
        assert [(event.step, event.value) for event in events.Scalars(name)] == list(enumerate(values, 1))
    told = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(told).session_start_info.hparams
    assert settings["algorithm.beta"].number_value == 0.25
    assert settings["algorithm.name"].string_value == "dpo"


@needs("tensorboard")
def test_what_a_killed_task_left_of_an_iteration_is_not_shown(root: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    settings = config(name="tensorboard")
    tracking.begin(settings, root, RUN)
    folder = tracking.log(settings, root, RUN, history(1), 0)["tensorboard"]
    with SummaryWriter(folder) as killed:
        killed.add_scalar("win_rate", 9.0, 2)
    tracking.log(settings, root, RUN, history(2), 0)
    events = EventAccumulator(folder).Reload().Scalars("win_rate")
    assert [(event.step, event.value) for event in events] == [(1, 0.5), (2, 0.625)]


@pytest.mark.slow
@needs("mlflow", "sqlalchemy", "alembic")
def test_mlflow(root: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    settings = config(name="mlflow", experiment="mine")
    uri = run(root, settings)
    assert uri == f"sqlite:///{tmp_path}/store/trackers/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == RUN
    assert found.info.status == "FINISHED"
    assert found.data.params["algorithm.beta"] == "0.25"
    assert found.data.params["iterations"] == "3"
    assert len(found.data.params) == len(tracking.settings(settings)) > 100
    assert set(found.data.metrics) == {"iteration", "win_rate", "part_length/a b.3f."}
    for name, values in FIGURES.items():
        points = client.get_metric_history(found.info.run_id, entity(name))
        assert [(point.step, point.value) for point in points] == list(enumerate(values, 1))


@pytest.mark.slow
@needs("mlflow", "sqlalchemy", "alembic")
def test_another_run_is_another_one_in_mlflow(root: str) -> None:
    from mlflow import MlflowClient

    settings = config(name="mlflow")
    for name in (RUN, "WindFlow/18"):
        tracking.begin(settings, root, name)
        uri = tracking.log(settings, root, name, history(1), 0)["mlflow"]
    found = MlflowClient(uri).search_runs(["1"])
    assert {(one.info.run_name, one.info.status) for one in found} == {(RUN, "RUNNING"), ("WindFlow/18", "RUNNING")}


@pytest.mark.slow
@needs("mlflow", "sqlalchemy", "alembic")
def test_more_figures_than_mlflow_takes_at_once(root: str) -> None:
    from mlflow import MlflowClient

    (row,) = history(1).to_dict("records")
    many = pd.DataFrame([row | {f"held_out[{group}]": float(group) for group in range(1200)}])
    uri = tracking.log(config(name="mlflow"), root, RUN, many, 0)["mlflow"]
    (found,) = MlflowClient(uri).search_runs(["1"])
    assert len(found.data.metrics) == 1 + len(FIGURES) + 1200
    assert found.data.metrics["held_out/1199"] == 1199.0


@needs("mlflow")
def test_a_server_of_mlflow_that_is_away(
    root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = config(name="mlflow", tracking_uri="http://127.0.0.1:9")
    with pytest.raises(TrackerError, match=r"trackers\.0\.tracking_uri: 'http://127\.0\.0\.1:9' cannot be used"):
        tracking.check(settings, root)
    assert tracking.log(settings, root, RUN, history(1), 0).keys() == {"metrics"}
    assert "trackers.0: mlflow failed" in caplog.text
    assert "or start the server. It is told again" in caplog.text


def test_names_that_mlflow_does_not_take() -> None:
    assert entity("win_rate") == "win_rate"
    assert entity("training.learning_rate") == "training.learning_rate"
    assert entity("win_rate[short]") == "win_rate/short"
    assert entity("win_rate[..]") == "win_rate/.2e..2e."
    assert entity("win_rate[a/b]") == "win_rate/a.2f.b"
    long = [entity(f"win_rate[{'x' * 300}{end}]") for end in "ab"]
    assert [len(name) for name in long] == [250, 250]
    assert long[0] != long[1]


@needs("trackio")
def test_trackio(root: str) -> None:
    address = run(root, config(name="trackio", project="mine"))
    assert address == "trackio show --project mine"
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (found,) = trackio.Api().runs("mine")
    assert found.name == RUN
    assert found.config is not None
    assert found.config["algorithm.beta"] == 0.25
    points = SQLiteStorage.get_logs("mine", RUN, run_id=found.id)
    assert [point["step"] for point in points] == [1, 2, 3]
    for name, values in FIGURES.items():
        assert [point[name] for point in points] == values


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard", "trackio"])
def test_a_client_that_is_not_installed(name: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(name=name)
    (tmp_path / name).mkdir()  # as W&B itself makes one where it runs
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    loaded = {module: sys.modules.pop(module) for module in list(sys.modules) if module.partition(".")[0] == name}
    message = rf"trackers\.0\.name: '{name}' needs the package {name}, .* Run pip install -r requirements-trackers\.txt"
    try:
        with pytest.raises(TrackerError, match=message):
            tracking.check(settings, root)
    finally:
        sys.modules.pop(name, None)
        sys.modules.update(loaded)


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        pytest.param({"name": "tensorboard"}, "folder: is required", marks=needs("tensorboard")),
        pytest.param({"name": "wandb", "mode": "offline"}, "folder: is required", marks=needs("wandb")),
        pytest.param({"name": "mlflow"}, "tracking_uri: is required", marks=needs("mlflow")),
    ],
)
def test_files_that_would_go_with_a_task(root: str, tracker: dict[str, str], message: str) -> None:
    with pytest.raises(TrackerError, match=rf"trackers\.0\.{message}"):
        tracking.check(config(**tracker), "s3://bucket/wind_store")
    assert not any(Path.cwd().iterdir())
