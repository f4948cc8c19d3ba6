"""Counts of the kill-and-resume tests, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from support.faults.chains import SAVED_STEPS, Chain, Tally
from support.flows.flow_home import Home


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
        changes = SAVED_STEPS | {"algorithm": {"name": algorithm}}
        return Chain(Home(tmp_path, server, changes), datastore, tally, server)

    return make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Counts of all tests that killed something, and what those saw that tell it."""
    # The tally is complete when the test is torn down; reports of that are filed under "".
    reports = [report for kind in ("", "error") for report in terminalreporter.stats.get(kind, [])]
    noted = [pair for report in reports for pair in getattr(report, "user_properties", [])]
    seen = [Tally(**value) for name, value in noted if name == "kills"]
    kills, identical, again, orphans = (
        sum(getattr(tally, name) for tally in seen) for name in ("kills", "identical", "again", "orphans")
    )
    if kills:
        longest = max(tally.longest for tally in seen)
        terminalreporter.write_line(
            f"{kills} kills, {identical} resumed to the identical policy, {again} finished tasks run again, "
            f"{orphans} orphans (the slowest process ended {longest:.1f} s after the kill)"
        )
        for line in dict.fromkeys(value for name, value in noted if name == "seen"):
            terminalreporter.write_line(line)
