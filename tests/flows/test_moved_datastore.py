"""A copied datastore: a run continues in the copy, with the weights store beside it, and leaves the original alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.flows.flow_home import Home

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

FEW_TASKS = {"prompts": {"shards": 1}, "live_cards": []}  # each card takes processes of its own


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_copied_run_goes_on_in_the_copy(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("original", "copy", "without")}
    folders["original"].mkdir()
    original = Home(folders["original"], changes=FEW_TASKS)
    run = original.flow(
        "local", "run", status=1, inject=["support.flows.wind_runs.fail"], FAIL_AT="evaluate_1", FAIL_HOW="raise before"
    )
    before = files(original.folder)
    for name in ("copy", "without"):
        shutil.copytree(original.folder, folders[name])
    shutil.rmtree(folders["without"] / "wind_store")

    copy = Home(folders["copy"])
    resumed = copy.flow("local", "resume", "--origin-run-id", run)
    assert copy.artifacts(resumed, ["store_root"]) == {"store_root": str(folders["copy"] / "wind_store")}
    assert files(original.folder) == before

    _, ended = Home(folders["without"]).launch("local", "resume", "--origin-run-id", run)
    assert ended.status == 1
    said = ended.stdout + ended.stderr
    assert f"{folders['without']}/wind_store: the weights store of this datastore lacks files of the run" in said
    assert f"Copy {folders['original']}/wind_store to {folders['without']}/wind_store too" in said
    assert "Traceback" not in said
    assert files(original.folder) == before
