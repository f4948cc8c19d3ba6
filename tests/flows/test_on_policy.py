"""J-BOND through WindFlow: its shards stay empty, its training step draws, and a resume continues with its anchor.

test_compare_flow.py fails and resumes it too, as an arm beside another.
"""

import pandas as pd
import pytest

from support.flows.by_stages import undisturbed
from support.flows.wind_runs import FLOW, INJECT, figures, preset

N, T = 16, 2  # prompts of an iteration, iterations of smoke.yaml


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_that_fails_in_training_ends_like_one_that_never_did(run_flow, tmp_path):
    config = preset(live_cards=[])  # each takes processes of its own
    config |= {"algorithm": {"name": "jbond"}, "prompts": {**config["prompts"], "shards": 1}}
    config["training"]["learning_rate"] = 1e-2
    expected = undisturbed(config, tmp_path / "alone")

    fault = {"FAIL_AT": "train_2", "FAIL_HOW": "raise after"}
    failed = run_flow(FLOW, config=config, env=fault, status="failed", decospecs=[INJECT]).run
    run = run_flow(FLOW, resume=failed.id).run
    executed = {step.id for step in run for task in step if "origin-task-id" not in task.metadata_dict}
    assert executed == {"train_2", "evaluate_2", "end"}
    for artifact in ("policy", "optimizer", "examples", "counts"):
        assert getattr(run.data, artifact) == getattr(expected, artifact), artifact
    history = run.data.history
    pd.testing.assert_frame_equal(figures(history), figures(expected.history), check_exact=True)

    assert list(history["algorithm"]) == ["jbond"] * T
    assert (history["prompts"] == N).all()
    assert (history["responses"] == 3 * N).all()  # one of the policy, two of the anchor
    assert history["tokens_generated"].between(3 * N, 3 * N * 8).all()
    assert history["kl"].nunique() == T
    for t in (1, 2):
        assert run[f"gather_{t}"].task.data.rollouts == [{}]
        assert run[f"train_{t}"].task.data.optimizer.keys() == {"optimizer.safetensors", "anchor.safetensors"}
