"""WindFlow with `--datastore s3`: it fails, is resumed, and ends with the files of a run on the local datastore."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FLOW = ROOT / "flows" / "wind_flow.py"
FLOW_TESTS = ROOT / "tests" / "flows"  # their module has the step decorator that makes a task fail

READ = """
import pickle, sys
from metaflow import Run, namespace
namespace(None)
data = Run(sys.argv[1]).data
names = ("policy", "optimizer", "examples", "rollouts", "counts", "history", "store_root")
pickle.dump({name: getattr(data, name) for name in names}, open(sys.argv[2], "wb"))
"""

pytestmark = [pytest.mark.s3, pytest.mark.slow]


class Home:
    """A home of its own for runs, on the datastore of `server`."""

    def __init__(self, folder: Path, server: Any) -> None:
        self.folder = folder
        config = yaml.safe_load((ROOT / "flows/configs/smoke.yaml").read_text())
        (folder / "smoke.yaml").write_text(yaml.safe_dump({**config, "iterations": 1}))
        path = [str(FLOW.parent), str(FLOW_TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {
            **os.environ,
            **server.env,
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://wind/{uuid.uuid4().hex}/metaflow",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
            "METAFLOW_DEFAULT_METADATA": "local",
            "METAFLOW_DEFAULT_DATASTORE": "local",
            "METAFLOW_HOME": str(folder),
            "METAFLOW_PROFILE": "",
            "USERNAME": "tester",
            "PYTHONPATH": os.pathsep.join(path),
        }

    def python(self, *arguments: str, status: int = 0, **env: str) -> str:
        """Standard output of Python with these arguments, which must end with `status`."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def flow(self, datastore: str, action: str, *options: str, status: int = 0, **env: str) -> str:
        """Runs or resumes the flow; the run's id."""
        top = ["--no-pylint", "--datastore", datastore]
        if action == "run":
            top += ["--config", "config", "smoke.yaml", "--with", "wind_runs.fail"]
        self.python(str(FLOW), *top, action, "--run-id-file", "id", *options, status=status, **env)
        return (self.folder / "id").read_text()

    def artifacts(self, run: str) -> dict[str, Any]:
        """What the run ended with."""
        self.python("-W", "ignore", "-c", READ, f"WindFlow/{run}", "read")
        result: dict[str, Any] = pickle.loads((self.folder / "read").read_bytes())
        return result


def test_a_resumed_run_on_s3_equals_a_local_one(s3_server, tmp_path: Path) -> None:
    home = Home(tmp_path, s3_server)
    local = home.artifacts(home.flow("local", "run"))
    failed = home.flow("s3", "run", status=1, FAIL_AT="train_1", FAIL_HOW="raise after")
    run = home.flow("s3", "resume", "--origin-run-id", failed)
    remote = home.artifacts(run)

    assert remote.pop("store_root") == home.env["METAFLOW_DATASTORE_SYSROOT_S3"].replace("/metaflow", "/wind_store")
    assert local.pop("store_root") == str(tmp_path / "wind_store")
    expected, found = local.pop("history"), remote.pop("history")
    timed = [name for name in expected if name.startswith("seconds_")]
    pd.testing.assert_frame_equal(found.drop(columns=timed), expected.drop(columns=timed), check_exact=True)
    assert remote == local  # manifests: equal bytes

    said = home.python("-m", "components.store", "verify", f"WindFlow/{run}", "--datastore", "s3")
    assert said.splitlines()[-1].endswith(" files read, 0 of them missing or damaged")
    home.python("-m", "components.export", f"WindFlow/{run}", "exported")
    assert sorted(remote["policy"]) == sorted(path.name for path in (tmp_path / "exported").iterdir())
    said = home.python("-m", "components.store", "gc", "--older-than", "1d", "--delete", "--datastore", "s3")
    assert said.splitlines()[-1] == "0 files, 0 B, 0 unfinished ones and 0 notes: removed"
