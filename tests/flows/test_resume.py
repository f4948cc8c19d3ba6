"""WindFlow fails at every kind of step, is resumed each time, and ends as if nothing had happened."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from wind_runs import FLOW, INJECT, SMOKE, figures

FAULTS = {
    "start": "raise before",
    "plan_1": "raise before",
    "generate_1/1": "kill",
    "score_1/1": "raise before",
    "gather_1": "raise before",
    "train_1": "raise after",
    "evaluate_1": "raise before",
    "end": "raise after",
}
TASKS = [
    "start",
    "plan_1",
    "generate_1/0",
    "generate_1/1",
    "score_1/0",
    "score_1/1",
    "gather_1",
    "train_1",
    "evaluate_1",
    "end",
]


def tasks(run):
    """Tasks that there are, as `step` or `step/shard`."""
    return {step.id if task.index is None else f"{step.id}/{task.index}": task for step in run for task in step}


@pytest.mark.slow
def test_a_run_that_fails_everywhere_ends_like_one_that_never_did(run_flow, flow_env):
    config = {**yaml.safe_load(SMOKE.read_text()), "iterations": 1}
    undisturbed = run_flow(FLOW, config=config).run
    # Read now: the client keeps one datastore at a time, and lazily.
    policy, optimizer = undisturbed.data.policy, undisturbed.data.optimizer
    history, examples = undisturbed.data.history, undisturbed.data.examples

    path = os.pathsep.join([flow_env["PYTHONPATH"], str(Path(__file__).parent)])
    options = {"decospecs": [INJECT], "max_workers": 1}  # one worker: the tasks come in the order of TASKS
    source = {"config": config}
    before = {}
    for failing, how in FAULTS.items():
        fault = {"FAIL_AT": failing, "FAIL_HOW": how, "PYTHONPATH": path}
        result = run_flow(FLOW, **source, env=fault, status="failed", **options)
        found = tasks(result.run)
        assert sorted(found, key=TASKS.index) == TASKS[: TASKS.index(failing) + 1]
        assert {name for name, task in found.items() if not task.successful} == {failing}
        check_cloned(found, before)
        command = re.search(r"^  python (\S+) resume --origin-run-id (\S+)$", result.stderr, re.MULTILINE)
        assert command.groups() == (str(FLOW), result.run.id)
        source, before = {"resume": command[2]}, found
    run = run_flow(FLOW, **source).run
    found = tasks(run)
    assert sorted(found) == sorted(TASKS)
    check_cloned(found, before)

    assert run.data.policy == policy
    assert run.data.optimizer == optimizer
    assert run.data.examples == examples
    pd.testing.assert_frame_equal(figures(run.data.history), figures(history), check_exact=True)


def check_cloned(found, before):
    """What succeeded in the run before was cloned from it, to the last task; nothing else was."""
    succeeded = {name for name, task in before.items() if task.successful}
    cloned = {name: task.metadata_dict for name, task in found.items() if "origin-task-id" in task.metadata_dict}
    print({name: (found[name].id, found[name].metadata_dict) for name in cloned})
    assert cloned.keys() == succeeded
