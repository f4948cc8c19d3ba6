"""`start_from` where notes of finished runs tell too little or too much, or files of them are gone."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from components.config.errors import BlobError, ConfigError, StoreError
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from components.stages.handover import Started
from components.stages.origin import Origin
from components.stages.start_from import beginning, find, remember
from components.store import open_store
from components.store.references import uses

CONFIG = """
policy: {model: base}
prompts: {train: prompts.jsonl}
judge: {name: verifier, function: "mine:score"}
start_from: """
NEWER, OLDER = "WindFlow/2", "WindFlow/1"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """The store of two finished runs; each of their files is its own."""
    root = str(tmp_path / "store")
    with workspace(root) as work:
        for run in (OLDER, NEWER):
            names = ("base", "prompts", "first", "policy", "optimizer", "evaluated")
            kept = {name: work.keep(name, lambda path: path.write_text(path.name + run)) for name in names}  # noqa: B023
            started = Started(kept["base"], kept["prompts"], kept["first"], reward=0.5, precision="fp32")
            files = {name: kept[name] for name in ("policy", "optimizer", "evaluated")}
            history = pd.DataFrame({"run": [run]})
            remember(work, Origin(run, work.config.model_dump(), root, started, **files, history=history, iteration=2))
    return root


def workspace(root: str, wanted: str = "latest", text: str = ""):
    return open_workspace(RunConfig.model_validate(parse(f"{CONFIG}{wanted}\n{text}")), root, "start")


def found(root: str, wanted: str = "latest") -> str:
    """The run, whose history is its own."""
    with workspace(root, wanted) as work:
        origin = find(work)
        assert origin is not None
        assert origin.history is not None
        assert origin.history["run"].tolist() == [origin.run]
        origin.check(work)
        return origin.run


def note(root: str, run: str = NEWER) -> Path:
    return Path(root, "notes", f"finished-{run.replace('/', '-')}")


def change(root: str, key: str, value: object = None) -> None:
    """Puts a value into the newer run's note; None takes it out."""
    whole = json.loads(note(root).read_text())
    *sections, last = key.split(".")
    inner = whole
    for section in sections:
        inner = inner[section]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    note(root).write_text(json.dumps(whole))


@pytest.mark.parametrize(
    "key", ["iteration", "store_root", "config", "config.judge", "started.reward", "started.precision"]
)
def test_a_note_that_tells_too_little(root: str, key: str, caplog) -> None:
    change(root, key)
    with caplog.at_level(logging.WARNING):
        assert found(root) == OLDER
    (line,) = caplog.messages
    assert "no run can continue from WindFlow/2" in line
    assert f"({key} is missing" in line.replace("config.policy is", f"{key} is")
    with workspace(root, NEWER) as work, pytest.raises(StoreError, match=r"no run can continue from WindFlow/2 \("):
        find(work)
    assert NEWER in {use.run for those in uses(open_store(root)).values() for use in those}  # gc goes on


@pytest.mark.parametrize("value", ["2", 0, 1.5, True, [1]])
def test_an_iteration_that_is_none(root: str, value: object) -> None:
    change(root, "iteration", value)
    assert found(root) == OLDER


def test_what_a_later_version_added_is_left_alone(root: str) -> None:
    change(root, "later", {"a": 1})
    change(root, "started.later", 3)
    assert found(root) == found(root, NEWER) == NEWER


FILES = ["history", "policy", "optimizer", "evaluated", "started.policy", "started.prompts", "started.evaluated"]


@pytest.mark.parametrize("key", FILES)
def test_a_run_that_lost_a_file_is_left_out(root: str, key: str, caplog) -> None:
    content = json.loads(note(root).read_text())
    for part in key.split("."):
        content = content[part]
    ((name, entry),) = content.items()
    open_store(root).remove(entry["sha256"])
    with caplog.at_level(logging.WARNING):
        assert found(root) == OLDER
    (line,) = caplog.messages
    assert line.startswith(f"start_from: latest leaves out WindFlow/2. {name}")
    with workspace(root, NEWER) as work, pytest.raises(BlobError, match="is missing"):
        find(work)
    note(root, OLDER).unlink()
    with workspace(root) as work:
        assert find(work) is None
        assert f"the newest not for this:\n{name}" in beginning(work, None)


def test_a_copied_store_without_the_history(root: str, tmp_path: Path) -> None:
    """What to do is said as for any other file."""
    moved = tmp_path / "elsewhere" / "store"
    moved.parent.mkdir()
    Path(root).rename(moved)
    (entry,) = json.loads(note(str(moved)).read_text())["history"].values()
    open_store(str(moved)).remove(entry["sha256"])
    with (
        workspace(str(moved), NEWER) as work,
        pytest.raises(ConfigError, match=r"which lacks files of it\. Copy .*history\.parquet.* is missing"),
    ):
        find(work)
    assert found(str(moved)) == OLDER


def test_other_settings_are_no_reason_to_warn(root: str, caplog) -> None:
    with caplog.at_level(logging.WARNING), workspace(root, text="generation: {temperature: 0.5}") as work:
        assert find(work) is None
        assert "generation.temperature: is 0.5" in beginning(work, None)
    assert caplog.messages == []
