"""A shard that is lost costs its own time only."""

from __future__ import annotations

import pytest

from support.flows.wind_runs import FLOW, INJECT, preset

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SHARDS = 4


def numbers(run, step):
    """Shards whose tasks ran to their end, and those whose tasks were cloned."""
    done = {task.index: task for task in run[step] if task.successful}
    cloned = {index for index, task in done.items() if "origin-task-id" in task.metadata_dict}
    return done.keys() - cloned, cloned


@pytest.mark.usefixtures("every_kill")
def test_a_resume_does_one_of_four_shards_again(run_flow, open_run):
    """The last one is killed when the others are done; J-BOND's shards need no model, and are shards all the same."""
    config = preset(iterations=1, live_cards=[], algorithm={"name": "jbond"})
    config["prompts"] |= {"shards": SHARDS}
    options = {"decospecs": [INJECT], "max_workers": 1}
    fault = {"FAIL_AT": f"generate_1/{SHARDS - 1}", "FAIL_HOW": "kill"}
    failed = run_flow(FLOW, config=config, env=fault, status="failed", **options)
    run = open_run(failed.run.pathspec)
    assert numbers(run, "generate_1") == ({0, 1, 2}, set())
    again = open_run(run_flow(FLOW, resume=failed.run.id, **options).run.pathspec)
    assert again.successful
    assert numbers(again, "generate_1") == ({3}, {0, 1, 2})
