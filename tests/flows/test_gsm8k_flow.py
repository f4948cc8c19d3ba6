"""The example of GSM8K through the flow: its config with a tiny model of the same kind and made-up questions."""

import numpy as np
import pytest

from components.config.strict_yaml import load_yaml
from support.flows.wind_runs import FLOW
from support.gsm8k import EXAMPLE, TEST, TRAIN, needs_math, save
from support.models.families import FAMILIES, save_policy

pytestmark = [pytest.mark.slow, pytest.mark.thorough, needs_math]


@pytest.mark.parametrize("algorithm", ["wind", "grpo"])
def test_the_example_runs_to_its_end(algorithm, run_flow, tmp_path):
    """The config as it is but for what takes a GPU: model, engine, numbers."""
    values = load_yaml((EXAMPLE / "config.yaml").read_text("utf-8"))
    values["iterations"] = 2
    values["policy"]["model"] = str(save_policy(FAMILIES["qwen2.5"], tmp_path / "policy"))
    values["prompts"] |= {"train": str(save(tmp_path / "gsm8k")), "per_iteration": 8}
    values["generation"] |= {"engine": {"name": "transformers"}, "responses": 4, "max_new_tokens": 8}
    values["judge"]["function"] = f"{EXAMPLE / 'judge.py'}:score"
    values["algorithm"] = {"name": algorithm}
    values["training"] |= {"batch_size": 4, "micro_batch_size": 2}
    values["resources"] = {kind: {"cpu": 1} for kind in ("start", "generate", "score", "train", "evaluate")}
    run = run_flow(FLOW, config=values).run
    history = run.data.history
    assert history["iteration"].tolist() == [1, 2]
    assert history["responses"].tolist() == [32, 32]
    assert history["held_out"].tolist() == [len(TEST)] * 2
    assert len(TRAIN) + len(TEST) == 16
    for part in ("correct", "answered"):
        for side in ("", "_reference"):
            bounds = history[[f"part_{part}{side}{bound}" for bound in ("_low", "", "_high")]].to_numpy()
            assert (np.diff(bounds, axis=1) >= 0).all()
            assert ((bounds >= 0) & (bounds <= 1)).all()
    assert history["part_correct"].tolist() == history["reward_mean"].tolist()  # the score is whether it is right
    assert (history["part_correct"] <= history["part_answered"]).all()
    assert "adapter/adapter_model.safetensors" in run.data.policy
