"""WindFlow fails at every kind of step, is resumed each time, and ends as if nothing had happened.

In a copy of the datastore, too, with the weights store beside it; the original is left alone.
"""

import re
import shutil

import pandas as pd
import pytest

from support.flows.by_stages import undisturbed
from support.flows.flow_home import Home
from support.flows.wind_runs import FLOW, INJECT, figures, preset

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

# Of each way to fail, and where a task is one of many; tests/faults kills a run at every task.
FAULTS = {
    "start": "raise before",
    "generate_1/1": "kill",
    "train_1": "raise after",
    "evaluate_1": "raise before",
}
TASKS = [
    *("start", "plan_1", "generate_1/0", "generate_1/1", "score_1/0", "score_1/1"),
    *("gather_1", "train_1", "evaluate_1", "end"),
]
CONFIG = preset(iterations=1, live_cards=[])  # each card takes processes of its own
COPIED = "evaluate_1"  # where the run fails of which a copy of the datastore is kept


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("resumed") / "original"
    home.mkdir()
    return home


@pytest.fixture
def tmp_path(home):
    """All tests of this file share one datastore, and one chain of runs in it."""
    return home


@pytest.fixture
def chain(once, home, run_flow):
    """`attempts`, each with the task that fails, how, the run and what it said; the `last` run; the run `copied`."""
    if once:
        return once
    options = {"decospecs": [INJECT], "max_workers": 1}  # one worker: the tasks come in the order of TASKS
    source, attempts = {"config": CONFIG}, []
    for failing, how in FAULTS.items():
        fault = {"FAIL_AT": failing, "FAIL_HOW": how}
        result = run_flow(FLOW, **source, env=fault, status="failed", **options)
        attempts.append((failing, how, result.run.pathspec, result.stderr))
        source = {"resume": result.run.id}
        if failing == COPIED:
            copied = result.run.id
            shutil.copytree(home, home.with_name("copy"))
    last = run_flow(FLOW, **source).run.pathspec
    once.update(attempts=attempts, last=last, copied=copied)
    return once


def test_a_run_that_fails_everywhere_ends_like_one_that_never_did(chain, open_run, home):
    origin = []  # tasks that the run before finished
    for failing, how, pathspec, said in chain["attempts"]:
        run = open_run(pathspec)
        finished, cloned, unfinished = tasks(run)
        assert finished == TASKS[: TASKS.index(failing)]
        assert cloned == origin
        assert unfinished == [failing.split("/")[0]]
        command = re.search(r"^  python (\S+) resume --origin-run-id (\S+)$", said, re.MULTILINE)
        assert command.groups() == (str(FLOW), run.id)
        assert (f"A task of {unfinished[0]} was killed from outside" in said) == (how == "kill")
        origin = finished
    run = open_run(chain["last"])
    assert tasks(run) == (TASKS, origin, [])

    expected = undisturbed(CONFIG, home / "alone")
    for artifact in ("policy", "optimizer", "examples", "rollouts", "counts"):
        assert getattr(run.data, artifact) == getattr(expected, artifact), artifact
    pd.testing.assert_frame_equal(figures(run.data.history), figures(expected.history), check_exact=True)


def test_a_copied_run_goes_on_in_the_copy(chain, home):
    copy, without = home.with_name("copy"), home.with_name("without")
    shutil.copytree(copy, without)
    shutil.rmtree(without / "wind_store")
    before = files(home)

    place = Home(copy)
    resumed = place.flow("local", "resume", "--origin-run-id", chain["copied"])
    assert place.artifacts(resumed, ["store_root"]) == {"store_root": str(copy / "wind_store")}
    assert files(home) == before

    _, ended = Home(without).launch("local", "resume", "--origin-run-id", chain["copied"])
    assert ended.status == 1
    said = ended.stdout + ended.stderr
    assert f"{without}/wind_store: the weights store of this datastore lacks files of the run" in said
    assert f"Copy {home}/wind_store to {without}/wind_store too" in said
    assert "Traceback" not in said
    assert files(home) == before


def files(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def tasks(run):
    """Finished tasks as `step` or `step/shard` in the order of TASKS, those of them that were cloned, and the
    steps of unfinished tasks: which shard it was, a task that was killed has not told.
    """
    every = [(step.id, task) for step in run for task in step]
    done = {step if task.index is None else f"{step}/{task.index}": task for step, task in every if task.successful}
    finished = sorted(done, key=TASKS.index)
    cloned = [name for name in finished if "origin-task-id" in done[name].metadata_dict]
    return finished, cloned, [step for step, task in every if not task.successful]
