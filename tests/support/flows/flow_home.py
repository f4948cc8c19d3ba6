"""A folder in which flows run as a user runs them, and what the runs left there."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import uuid
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[3]
FLOW = ROOT / "flows" / "wind_flow.py"
SMOKE = FLOW.parent / "configs" / "smoke.yaml"
# Where the tasks find the flows' modules, the package of this tree, and the decorators that tests inject.
MODULES = [ROOT, FLOW.parent, ROOT / "tests"]

FOUR_STEPS = {"training": {"batch_size": 4}}  # of the optimiser, as many as tests speak of
RESULT = ("policy", "optimizer", "examples", "rollouts", "counts", "history", "store_root")
ARTIFACTS = """
import pickle, sys
from metaflow import Run, namespace
namespace(None)
data = Run(sys.argv[1]).data
pickle.dump({name: getattr(data, name) for name in sys.argv[3:]}, open(sys.argv[2], "wb"))
"""
TASKS = """
import json, sys
from metaflow import Run, namespace
namespace(None)
for run in sys.argv[1:]:
    tasks = [(step.id, task) for step in Run(run) for task in step if task.successful]
    names = {step if task.index is None else f"{step}/{task.index}": task for step, task in tasks}
    print(json.dumps({name: "origin-task-id" in task.metadata_dict for name, task in names.items()}))
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int  # negative: the signal that killed it
    stdout: str
    stderr: str


def config_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """smoke.yaml with one iteration and what `changes` say."""
    config = yaml.safe_load(SMOKE.read_text()) | {"iterations": 1}
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, Mapping) else values
    return config


class Home:
    """Holds the config of runs, that of `config_of`, and all that they write.

    With a `server`, `--datastore s3` goes to a place of its own there.
    """

    def __init__(self, folder: Path, server: Any = None, changes: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        (folder / "config.yaml").write_text(yaml.safe_dump(config_of(changes or {})))
        path = [*map(str, MODULES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {
            **os.environ,
            **(server.env if server else {}),
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://wind/{uuid.uuid4().hex}/metaflow",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
            "METAFLOW_DEFAULT_METADATA": "local",
            "METAFLOW_DEFAULT_DATASTORE": "local",
            "METAFLOW_HOME": str(folder),
            "METAFLOW_PROFILE": "",
            "METAFLOW_S3_WORKER_COUNT": "2",  # of processes that each transfer starts; 64 where nobody says
            "USERNAME": "tester",
            "PYTHONPATH": os.pathsep.join(path),
        }

    def store_root(self, datastore: str) -> str:
        """Where the runs keep their weights."""
        if datastore == "s3":
            return self.env["METAFLOW_DATASTORE_SYSROOT_S3"].replace("/metaflow", "/wind_store")
        return str(self.folder / "wind_store")

    def command(self, *arguments: str, cwd: Path | None = None, **env: str) -> Ended:
        """Python with these arguments."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd or self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def python(self, *arguments: str, **env: str) -> str:
        """Standard output of Python with these arguments, which must end well."""
        done = self.command(*arguments, **env)
        assert done.status == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def launch(
        self, datastore: str, *action: str, inject: Sequence[str] = (), cwd: Path | None = None, **env: str
    ) -> tuple[str, Ended]:
        """Runs or resumes the flow with the decorators `inject`; the run's id, and how the launcher ended."""
        top = ["--no-pylint", "--datastore", datastore, *(f"--with={decorator}" for decorator in inject)]
        if action[0] == "run":
            top += ["--config", "config", str(self.folder / "config.yaml")]
        file = self.folder / f"id-{uuid.uuid4().hex}"
        ended = self.command(str(FLOW), *top, action[0], "--run-id-file", str(file), *action[1:], cwd=cwd, **env)
        assert file.exists(), f"{ended.stdout}\n{ended.stderr}"
        return file.read_text(), ended

    def flow(self, datastore: str, *action: str, status: int = 0, **options: Any) -> str:
        """`launch` that must end with `status`; the run's id."""
        run, ended = self.launch(datastore, *action, **options)
        assert ended.status == status, f"{ended.stdout}\n{ended.stderr}"
        return run

    def artifacts(self, run: str, names: Sequence[str] = RESULT) -> dict[str, Any]:
        """What the run ended with."""
        file = self.folder / f"read-{run}"
        self.python("-W", "ignore", "-c", ARTIFACTS, f"WindFlow/{run}", str(file), *names)
        result: dict[str, Any] = pickle.loads(file.read_bytes())
        return result

    def tasks(self, runs: Sequence[str]) -> list[dict[str, bool]]:
        """Of each run the tasks that its record calls successful, `step` or `step/shard`, and whether cloned."""
        said = self.python("-W", "ignore", "-c", TASKS, *(f"WindFlow/{run}" for run in runs))
        return [json.loads(line) for line in said.splitlines()]


def card_content(html: str) -> str:
    """What a card shows, as JSON text; Metaflow puts it into the page in base64."""
    found = re.search(r'__MF_DATA__\["[^"]+"\] = "([^"]+)"', html)
    assert found, html
    return b64decode(found[1]).decode()


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Artifacts in which two runs differ, the store's place and the wall times in `history` excepted."""
    names = [name for name in expected if name not in ("history", "store_root")]
    unlike = [name for name in names if found[name] != expected[name]]  # of manifests: unequal bytes
    left, right = (data["history"].filter(regex="^(?!seconds_)") for data in (found, expected))
    try:
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    except AssertionError as error:
        return [*unlike, f"history: {error}"]
    return unlike
