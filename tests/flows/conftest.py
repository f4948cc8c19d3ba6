"""Fixtures that run real flows, each test in a datastore of its own."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow import Run, Runner
    from metaflow.plugins.datastores.local_storage import LocalStorage
    from metaflow.runner.metaflow_runner import ExecutingRun

TESTS = Path(__file__).parents[1]
FLOWS = TESTS.parent / "flows"
sys.path.insert(0, str(FLOWS))  # a Runner imports the flow here too, to learn its parameters


@pytest.fixture(scope="module")
def once() -> dict[str, Any]:
    """What a file's tests keep of the runs that they share."""
    return {}


@pytest.fixture
def flow_env(tmp_path: Path) -> dict[str, str]:
    """Environment variables under which a flow sees no configuration but the test's own.

    Runs and artifacts go to `tmp_path/.metaflow`. Add them to `os.environ` for a subprocess, and start it in
    `tmp_path`: cards go to the working directory's `.metaflow`, and the client looks for them beside the artifacts.
    Flows find the modules beside the shipped flows and `support`, wherever they are themselves.
    """
    modules = [str(FLOWS), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "METAFLOW_HOME": str(tmp_path),
        "METAFLOW_PROFILE": "",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(tmp_path),
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_USER": "tester",
        "USERNAME": "tester",
        "PYTHONPATH": os.pathsep.join(modules),
    }


@pytest.fixture
def open_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """A function from "Flow/RUN" to the client's Run in the test's datastore.

    The client reads METAFLOW_* once, when it is imported, and keeps the datastore's path, the namespace and a cache
    of files for the whole process. Here they belong to one test, and the namespace is all users.
    """
    monkeypatch.setattr("metaflow.client.core.current_namespace", None)
    monkeypatch.setattr(LocalStorage, "datastore_root", None)
    monkeypatch.setattr("metaflow.client.core.filecache", None)
    monkeypatch.setattr("metaflow.client.filecache.CLIENT_CACHE_PATH", str(tmp_path / "client"))
    return lambda pathspec: Run(pathspec, _current_metadata=f"local@{tmp_path}")


@pytest.fixture
def run_flow(
    flow_env: dict[str, str], tmp_path: Path, open_run: Callable[[str], Run]
) -> Iterator[Callable[..., ExecutingRun]]:
    """A function that runs a flow, or resumes a run of it, and waits for the end.

    `run_flow(path, config=None, resume=None, step=None, env=None, status="successful", **parameters)`:

    * `config`: value of the flow's Config "config", either the file to read (a Path) or the data itself (a dict);
    * `resume`: id of the run to resume, from the tasks that it lacks or else from `step`;
    * `env`: environment variables beside those of `flow_env`;
    * `status`: how the run has to end, "successful" or "failed"; AssertionError with its output otherwise;
    * `parameters`: the flow's parameters and the options of `run` or `resume`, such as `max_workers=2`.

    The result has `run` (the client's Run; `open_run` gives it again), `stdout`, `stderr` and `status`. A config
    that is refused before a run exists raises its own exception.
    """
    interrupt = signal.getsignal(signal.SIGINT)  # a Runner takes it over
    with ExitStack() as cleanup:
        yield partial(run_with, cleanup, tmp_path, flow_env)
    signal.signal(signal.SIGINT, interrupt)


def run_with(
    cleanup: ExitStack,
    folder: Path,
    flow_env: dict[str, str],
    path: Path,
    *,
    config: Path | dict[str, Any] | None = None,
    resume: str | None = None,
    step: str | None = None,
    env: dict[str, str] | None = None,
    status: str = "successful",
    **parameters: Any,
) -> ExecutingRun:
    """See `run_flow`; the Runner, which works in `folder`, is left to `cleanup`."""
    given: dict[str, Any] = {}
    if isinstance(config, Path):
        given["config"] = [("config", str(config))]
    elif config is not None:
        given["config_value"] = [("config", config)]
    options = {"show_output": False, "pylint": False, "env": flow_env | (env or {}), "cwd": str(folder)}
    runner = cleanup.enter_context(Runner(str(path), **options, **given))
    if resume is None:
        result = runner.run(**parameters)
    else:
        rerun = {"step_to_rerun": step} if step else {}
        result = runner.resume(origin_run_id=resume, **rerun, **parameters)
    assert result.status == status, f"{result.stdout}\n{result.stderr}"
    return result
