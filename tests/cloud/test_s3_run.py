"""WindFlow with `--datastore s3`: it fails, is resumed, and ends with the files of a run on the local datastore."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.flows.flow_home import FOUR_STEPS, Home, differences

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.thorough]


def test_a_resumed_run_on_s3_equals_a_local_one(s3_server, tmp_path: Path, undisturbed) -> None:
    home = Home(tmp_path, s3_server, FOUR_STEPS)
    local = undisturbed("wind")
    fault = {"FAIL_AT": "train_1", "FAIL_HOW": "raise after"}
    failed = home.flow("s3", "run", status=1, inject=["support.flows.wind_runs.fail"], **fault)
    run = home.flow("s3", "resume", "--origin-run-id", failed)
    remote = home.artifacts(run)

    assert remote["store_root"] == home.env["METAFLOW_DATASTORE_SYSROOT_S3"].replace("/metaflow", "/wind_store")
    assert local["store_root"].endswith("/undisturbed-wind/wind_store")
    assert differences(remote, local) == []

    said = home.python("-m", "components.store", "verify", f"WindFlow/{run}", "--datastore", "s3")
    assert said.splitlines()[-1].endswith(" files read, 0 of them missing or damaged")
    home.python("-m", "components.export", f"WindFlow/{run}", "exported")
    assert sorted([*remote["policy"], "README.md"]) == sorted(path.name for path in (tmp_path / "exported").iterdir())
    said = home.python("-m", "components.store", "gc", "--older-than", "1d", "--delete", "--datastore", "s3")
    assert said.splitlines()[-1] == "0 files, 0 B, 0 unfinished ones and 0 notes: removed"
