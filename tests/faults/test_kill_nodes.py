"""Either of two nodes that train is killed at each phase and the run resumed: it ends bit for bit as if undisturbed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.faults.chains import Tally
from support.faults.nodes import CHANGES, Attempt
from support.faults.phases import PHASES
from support.flows.flow_home import Home, differences

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.usefixtures("every_kill")]

EITHER = [(phase, f"node {node}") for phase in list(PHASES)[:10] for node in (0, 1)]
OTHERS = [
    *(("first pass", f"worker {node}") for node in (0, 1)),
    *(("second pass", f"task {node}") for node in (0, 1)),
    *((phase, "all") for phase in ("first pass", "state is written")),
    ("join", "join"),
]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run ends with."""
    home = Home(tmp_path_factory.mktemp("undisturbed"), changes=CHANGES)
    with Attempt(home, "run") as attempt:
        attempt.end(600)
        assert attempt.launcher.returncode == 0, attempt.said
        return home.artifacts(attempt.run)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where a run lies that was killed as its training began, and its number; every test kills a resume of a copy."""
    home = Home(tmp_path_factory.mktemp("begun"), changes=CHANGES)
    with Attempt(home, "run") as attempt:
        attempt.reach(PHASES["task starts"], 0)
        attempt.strike("all")
        attempt.end()
        return home.folder, attempt.run


@pytest.mark.parametrize(("phase", "victim"), [*EITHER, *OTHERS], ids=lambda word: word.replace(" ", "-"))
def test_what_a_killed_node_leaves_is_resumed_to_the_same_bits(
    phase: str,
    victim: str,
    begun: tuple[Path, str],
    expected: dict[str, Any],
    tmp_path: Path,
    tally: Tally,
    record_property: Callable[[str, Any], None],
) -> None:
    """Also, the loss of one node ends the other soon: it does not wait the half hour of `nodes_wait_minutes`."""
    for part in (".metaflow", "wind_store"):
        shutil.copytree(begun[0] / part, tmp_path / part)
    home = Home(tmp_path, changes=CHANGES)
    with Attempt(home, "resume", "--origin-run-id", begun[1]) as attempt:
        attempt.reach(PHASES[phase], int(victim[-1]) if victim[-1].isdigit() else 0)
        attempt.strike(victim)
        tally.kills += 1
        steps = len(attempt.lines())
        stopped, tally.longest = attempt.end()
        assert attempt.launcher.returncode == (-9 if victim == "all" else 1), attempt.said
        seen = f"{phase}, {victim}: after step {steps}, {attempt.found()}; "
        seen += f"training ended {stopped:.1f} s later, the run {tally.longest:.1f} s; "
        seen += f"{attempt.redone():.1f} s of training to do again"
        failed = attempt.run
    with Attempt(home, "resume", "--origin-run-id", failed) as again:
        again.end(600)
        assert again.launcher.returncode == 0, again.said
        unlike = differences(home.artifacts(again.run), expected)
    record_property("seen", f"{seen}; {'equal' if unlike == [] else f'NOT EQUAL in {unlike}'}")
    print(f"{seen}; {unlike or 'equal'}")
    assert unlike == []
    assert again.note() is None
    tally.identical += 1
