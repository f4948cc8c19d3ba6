"""What a run tells while it is under way: the JSON lines, and how trackers are told."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.config.errors import ConfigError
from components.run_config import RunConfig, checked
from components.stages import tracking
from components.stages.in_process import Pipeline
from components.store import open_store
from components.store.files import keep_lines
from components.trackers import Row, TrackedRun, Tracker
from components.trackers.jsonl import Jsonl

SMOKE = Path(__file__).parents[2] / "flows" / "configs" / "smoke.yaml"
RUN = "WindFlow/17"


def smoke(**changes: object) -> RunConfig:
    values = yaml.safe_load(SMOKE.read_text())
    values["demo"] |= {"steps": 2, "hidden_size": 16}
    return checked({**values, **changes})


def history(*rates: float, since: int = 0) -> pd.DataFrame:
    rows = [{"iteration": since + t, "algorithm": "wind", "win_rate": rate} for t, rate in enumerate(rates, 1)]
    return pd.DataFrame(rows)


def lines(root: Path, name: str = "WindFlow-17") -> list[dict[str, object]]:
    text = (root / "metrics" / f"{name}.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_that_is_killed_and_resumed_writes_each_iteration_once(tmp_path: Path) -> None:
    config, root = smoke(), tmp_path / "store"
    pipeline = Pipeline(config, str(root))
    started = pipeline.start()
    path = Path(tracking.begin(config, str(root), RUN)[tracking.METRICS])
    assert path == root / "metrics" / "WindFlow-17.jsonl"
    with path.open("rb") as followed:  # as `tail -f` does
        first, second = pipeline.iterate(started)
        tracking.log(config, str(root), RUN, first.history, 0)
        seen = followed.read()
        assert json.loads(seen)["iteration"] == 1
        whole = Row(2, second.history.to_dict("records")[1]).line
        with path.open("a") as killed:
            killed.write(whole[:40])  # where the task was killed
        for _ in range(2):  # the task is retried, and again as the launcher was killed before it knew
            tracking.log(config, str(root), RUN, second.history, 0)
        assert (seen + followed.read()).decode() == path.read_text()
    found = lines(root)
    assert [line["iteration"] for line in found] == [1, 2]
    for line, (_, row) in zip(found, second.history.iterrows(), strict=True):
        assert line.keys() == set(second.history.columns)
        assert all(line[name] == row[name] or (line[name] is None and math.isnan(row[name])) for name in line)


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    tracking.log(smoke(iterations=2), str(tmp_path), RUN, history(math.nan, math.inf), 0)
    assert (tmp_path / "metrics" / "WindFlow-17.jsonl").read_text() == (
        '{"iteration": 1, "algorithm": "wind", "win_rate": null}\n'
        '{"iteration": 2, "algorithm": "wind", "win_rate": null}\n'
    )


def test_an_iteration_that_was_done_again_replaces_its_line(tmp_path: Path) -> None:
    config = smoke(iterations=2)
    tracking.log(config, str(tmp_path), RUN, history(0.5, 0.6), 0)
    tracking.log(config, str(tmp_path), RUN, history(0.75), 0)
    assert [line["win_rate"] for line in lines(tmp_path)] == [0.75]
    tracking.log(config, str(tmp_path), RUN, history(0.75, 0.875), 0)
    assert [line["win_rate"] for line in lines(tmp_path)] == [0.75, 0.875]


def test_a_run_that_continues_another_tells_its_own_iterations(tmp_path: Path) -> None:
    tracking.log(smoke(iterations=1, start_from=RUN), str(tmp_path), "WindFlow/18", history(0.5, 0.6, 0.7), 2)
    assert [line["iteration"] for line in lines(tmp_path, "WindFlow-18")] == [3]


@pytest.mark.parametrize("there", [b"", b"a", b"a\n", b"a\nb", b"a\nb\n", b"x\n", b"a\nb\nc\n", b"\xff"])
def test_lines_are_kept_whatever_is_there(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "new" / "lines"
    path.parent.mkdir()
    path.write_bytes(there)
    keep_lines(path, ["a", "b"])
    assert path.read_bytes() == b"a\nb\n"
    assert [one.name for one in path.parent.iterdir()] == ["lines"]


@pytest.mark.thorough
@pytest.mark.s3
def test_an_object_store_has_the_lines_as_one_object(s3_root: str) -> None:
    from components.store.s3_client import connect

    config = smoke(iterations=2)
    assert tracking.begin(config, s3_root, RUN)[tracking.METRICS] == f"{s3_root}/metrics/WindFlow-17.jsonl"
    for rates in ([0.5], [0.5, 0.6]):
        tracking.log(config, s3_root, RUN, history(*rates), 0)
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    found = connect(s3_root).get_object(Bucket=bucket, Key=f"{prefix}/metrics/WindFlow-17.jsonl")["Body"].read()
    assert [json.loads(line)["win_rate"] for line in found.splitlines()] == [0.5, 0.6]
    store = open_store(s3_root)
    assert [*store.blobs(), *store.notes(), *store.unfinished()] == []


def test_the_house_keeping_leaves_them_alone(tmp_path: Path) -> None:
    trackers = [{"name": "jsonl", "folder": str(tmp_path / "trackers")}]
    tracking.log(smoke(trackers=trackers), str(tmp_path), RUN, history(0.5), 0)
    store = open_store(str(tmp_path))
    assert [*store.blobs(), *store.notes(), *store.unfinished()] == []


class Away(Tracker):
    """A tracker whose server answers every second time."""

    name: str = "away"
    calls: list[list[int]]

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str:
        self.calls.append([row.iteration for row in rows])
        if len(self.calls) % 2 == 0:
            raise ConnectionError("no route to https://me:word@host")
        return "https://here"


def test_a_tracker_that_fails_on_the_way_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = Away(calls=[])
    config = smoke(iterations=3).model_copy(update={"trackers": [away, Jsonl(folder=str(tmp_path / "own"))]})
    assert tracking.begin(config, str(tmp_path), RUN)["away"] == "https://here"
    links = tracking.log(config, str(tmp_path), RUN, history(0.5), 0)
    assert links.keys() == {"metrics", "jsonl"}
    (warned,) = [record.getMessage() for record in caplog.records]
    assert "trackers.0: away failed" in warned
    assert "iteration 1" in warned
    assert "told again with the next iteration" in warned
    assert links["metrics"] in warned
    assert "word" not in warned
    assert tracking.log(config, str(tmp_path), RUN, history(0.5, 0.6), 0)["away"] == "https://here"
    assert away.calls == [[], [1], [1, 2]]
    assert (tmp_path / "own" / "WindFlow-17.jsonl").read_text() == Path(links["metrics"]).read_text()


def test_a_tracker_that_cannot_begin_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = smoke(trackers=[{"name": "jsonl", "folder": str(tmp_path / "file")}])
    with pytest.raises(ValueError, match=r"trackers\.0: jsonl cannot begin a run: .*remove the tracker"):
        tracking.begin(config, str(tmp_path), RUN)


def test_settings_are_flat_and_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WANDB_API_KEY", "secret-of-the-environment")
    policy = {"policy": {"model": "https://me:word@host/model"}, "prompts": {"train": ["a", "b"]}, "demo": None}
    found = tracking.settings(
        checked({**policy, "judge": {"name": "pairrm"}, "algorithm": {"name": "dpo", "beta": 0.25}})
    )
    assert found["algorithm.name"] == "dpo"
    assert found["algorithm.beta"] == 0.25
    assert found["prompts.train"] == '["a", "b"]'
    assert found["demo"] == "null"
    assert found["policy.model"] == "https://…@host/model"
    assert not any("secret" in str(value) or "word" in str(value) for value in found.values())
    assert {type(value) for value in found.values()} <= {str, int, float, bool}


def test_a_tracker_stands_once_in_the_config() -> None:
    with pytest.raises(ConfigError, match=r"trackers: jsonl is given twice"):
        smoke(trackers=[{"name": "jsonl", "folder": "a"}, {"name": "jsonl", "folder": "b"}])


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ({"name": "excel"}, r"trackers\.0: there is no 'excel'\. Use one of: jsonl, mlflow, tensorboard"),
        ({"name": "jsonl"}, r"trackers\.0\.folder: is required"),
        ({"name": "wandb", "mode": "sometimes"}, r"trackers\.0\.mode: 'sometimes' cannot be used"),
        (
            {"name": "mlflow", "tracking_uri": "http://me:word@host"},
            r"trackers\.0\.tracking_uri: 'http://…' holds",
        ),
        ({"name": "mlflow", "tracking_uri": ""}, r"trackers\.0\.tracking_uri: is empty\."),
    ],
)
def test_a_tracker_that_cannot_be(tracker: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        smoke(trackers=[tracker])
    assert "me:word" not in str(caught.value)
