"""Counts of the kill-and-resume tests, and what they share."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from support.faults.chains import FOUR_STEPS, Chain, Tally
from support.flows.flow_home import Home


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """`undisturbed(algorithm)`: what a run that nobody disturbs and that saves no training ends with.

    It is the same on every datastore, as manifests hold hashes of the files. Runs once for all of pytest's workers.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def end(algorithm: str) -> dict[str, Any]:
        folder = shared / f"undisturbed-{algorithm}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "end").exists():
                changes = {"algorithm": {"name": algorithm}, "training": {"batch_size": 4}}
                home = Home(folder, changes=changes)
                (folder / "end").write_bytes(pickle.dumps(home.artifacts(home.flow("local", "run"))))
        found: dict[str, Any] = pickle.loads((folder / "end").read_bytes())
        return found

    return end


@pytest.fixture
def tally(record_property: Callable[[str, Any], None]) -> Iterator[Tally]:
    """What this test saw, for the end of the session."""
    seen = Tally()
    yield seen
    record_property("kills", asdict(seen))


@pytest.fixture
def make_chain(tmp_path: Path, tally: Tally, request: pytest.FixtureRequest) -> Callable[..., Chain]:
    """`make_chain(datastore, algorithm="wind")`: a run that is to be killed, in a place of its own."""

    def make(datastore: str, algorithm: str = "wind") -> Chain:
        server = request.getfixturevalue("radosgw_server") if datastore == "s3" else None
        changes = FOUR_STEPS | {"algorithm": {"name": algorithm}}
        return Chain(Home(tmp_path, server, changes), datastore, tally, server)

    return make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line with the counts of all tests that killed something."""
    # The tally is complete when the test is torn down; reports of that are filed under "".
    reports = [report for kind in ("", "error") for report in terminalreporter.stats.get(kind, [])]
    seen = [
        Tally(**value)
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "kills"
    ]
    kills, identical, again, orphans = (
        sum(getattr(tally, name) for tally in seen) for name in ("kills", "identical", "again", "orphans")
    )
    if kills:
        longest = max(tally.longest for tally in seen)
        terminalreporter.write_line(
            f"{kills} kills, {identical} resumed to the identical policy, {again} finished tasks run again, "
            f"{orphans} orphans (the slowest process ended {longest:.1f} s after the kill)"
        )
