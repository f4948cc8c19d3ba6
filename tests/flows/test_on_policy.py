"""J-BOND through WindFlow: its shards stay empty, its training step draws, and a resume continues with its anchor.

test_compare_flow.py fails and resumes it too, as an arm beside another.
"""

import pandas as pd
import pytest

from support.flows.wind_runs import FLOW, INJECT, figures, preset

N, T = 16, 2  # prompts of an iteration, iterations of smoke.yaml


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_that_fails_in_training_ends_like_one_that_never_did(run_flow):
    config = preset()
    config |= {"algorithm": {"name": "jbond"}, "prompts": {**config["prompts"], "shards": 1}}
    config["training"]["learning_rate"] = 1e-2
    undisturbed = run_flow(FLOW, config=config).run
    history = undisturbed.data.history
    assert list(history["algorithm"]) == ["jbond"] * T
    assert (history["prompts"] == N).all()
    assert (history["responses"] == 3 * N).all()  # one of the policy, two of the anchor
    assert history["tokens_generated"].between(3 * N, 3 * N * 8).all()
    assert history["kl"].nunique() == T
    for t in (1, 2):
        assert undisturbed[f"gather_{t}"].task.data.rollouts == [{}]
        assert undisturbed[f"train_{t}"].task.data.optimizer.keys() == {"optimizer.safetensors", "anchor.safetensors"}

    fault = {"FAIL_AT": "train_2", "FAIL_HOW": "raise after"}
    failed = run_flow(FLOW, config=config, env=fault, status="failed", decospecs=[INJECT]).run
    run = run_flow(FLOW, resume=failed.id).run
    executed = {step.id for step in run for task in step if "origin-task-id" not in task.metadata_dict}
    assert executed == {"train_2", "evaluate_2", "end"}
    for artifact in ("policy", "optimizer", "examples", "counts"):
        assert getattr(run.data, artifact) == getattr(undisturbed.data, artifact), artifact
    pd.testing.assert_frame_equal(figures(run.data.history), figures(history), check_exact=True)
