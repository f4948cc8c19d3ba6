"""WindFlow fails at every kind of step, is resumed each time, and ends as if nothing had happened."""

import re

import pandas as pd
import pytest

from support.flows.undisturbed import undisturbed
from support.flows.wind_runs import FLOW, INJECT, figures, preset

pytestmark = pytest.mark.thorough

FAULTS = {
    "start": "raise before",
    "plan_1": "raise before",
    "generate_1/1": "kill",
    "score_1/1": "raise before",
    "gather_1": "raise before",
    "train_1": "raise after",
    "evaluate_1": "raise before",
    "end": "raise before",
}
TASKS = [
    *("start", "plan_1", "generate_1/0", "generate_1/1", "score_1/0", "score_1/1"),
    *("gather_1", "train_1", "evaluate_1", "end"),
]


@pytest.mark.slow
def test_a_run_that_fails_everywhere_ends_like_one_that_never_did(run_flow, tmp_path):
    config = preset(iterations=1, live_cards=[])  # each takes processes of its own
    expected = undisturbed(config, tmp_path / "alone")

    options = {"decospecs": [INJECT], "max_workers": 1}  # one worker: the tasks come in the order of TASKS
    source = {"config": config}
    origin = []  # tasks that the run before finished
    for failing, how in FAULTS.items():
        fault = {"FAIL_AT": failing, "FAIL_HOW": how}
        result = run_flow(FLOW, **source, env=fault, status="failed", **options)
        finished, cloned, unfinished = tasks(result.run)
        assert finished == TASKS[: TASKS.index(failing)]
        assert cloned == origin
        assert unfinished == [failing.split("/")[0]]
        command = re.search(r"^  python (\S+) resume --origin-run-id (\S+)$", result.stderr, re.MULTILINE)
        assert command.groups() == (str(FLOW), result.run.id)
        assert (f"A task of {unfinished[0]} was killed from outside" in result.stderr) == (how == "kill")
        source, origin = {"resume": command[2]}, finished
    run = run_flow(FLOW, **source).run
    assert tasks(run) == (TASKS, origin, [])

    for artifact in ("policy", "optimizer", "examples", "rollouts", "counts"):
        assert getattr(run.data, artifact) == getattr(expected, artifact), artifact
    pd.testing.assert_frame_equal(figures(run.data.history), figures(expected.history), check_exact=True)


def tasks(run):
    """Finished tasks as `step` or `step/shard` in the order of TASKS, those of them that were cloned, and the
    steps of unfinished tasks: which shard it was, a task that was killed has not told.
    """
    every = [(step.id, task) for step in run for task in step]
    done = {step if task.index is None else f"{step}/{task.index}": task for step, task in every if task.successful}
    finished = sorted(done, key=TASKS.index)
    cloned = [name for name in finished if "origin-task-id" in done[name].metadata_dict]
    return finished, cloned, [step for step, task in every if not task.successful]
