"""The example of GSM8K to its end: its config with a tiny model of the same kind and made-up questions."""

import numpy as np
import pytest

from components.config.strict_yaml import load_yaml
from components.run_config import checked
from components.stages.in_process import Pipeline
from support.flows.wind_runs import FLOW
from support.gsm8k import EXAMPLE, TEST, TRAIN, needs_math, save
from support.models.families import FAMILIES, save_policy

pytestmark = [pytest.mark.slow, pytest.mark.thorough, needs_math]


def tiny(home, **changes):
    """The config as it is but for what takes a GPU: model, engine, numbers; and the sections that `changes` replace."""
    values = load_yaml((EXAMPLE / "config.yaml").read_text("utf-8"))
    values["policy"]["model"] = str(save_policy(FAMILIES["qwen2.5"], home / "policy"))
    values["prompts"] |= {"train": str(save(home / "gsm8k")), "per_iteration": 8}
    values["generation"] |= {"engine": {"name": "transformers"}, "responses": 4, "max_new_tokens": 8}
    values["judge"]["function"] = f"{EXAMPLE / 'judge.py'}:score"
    values["training"] |= {"batch_size": 4}
    values["resources"] = {kind: {"cpu": 1} for kind in ("start", "generate", "score", "train", "evaluate")}
    return values | changes


def check(history, iterations):
    """What `history` tells of the held-out questions, of which each has one answer."""
    assert len(TRAIN) + len(TEST) == 16
    assert history["iteration"].tolist() == list(range(1, iterations + 1))
    assert history["responses"].tolist() == [8 * 4] * iterations
    assert history["held_out"].tolist() == [len(TEST)] * iterations
    for part in ("correct", "answered"):
        for side in ("", "_reference"):
            bounds = history[[f"part_{part}{side}{bound}" for bound in ("_low", "", "_high")]].to_numpy()
            assert (np.diff(bounds, axis=1) >= 0).all()
            assert ((bounds >= 0) & (bounds <= 1)).all()
            assert (bounds[:, 1] * len(TEST) % 1 == 0).all()  # a share of the questions
    assert history["part_correct"].tolist() == history["reward_mean"].tolist()  # the score is whether it is right
    assert (history["part_correct"] <= history["part_answered"]).all()


@pytest.mark.parametrize("algorithm", ["wind", "grpo"])
def test_the_stages(algorithm, tmp_path):
    config = checked(tiny(tmp_path, iterations=2, algorithm={"name": algorithm}))
    pipeline = Pipeline(config, str(tmp_path / "store"))
    check(pipeline.run(pipeline.start()), 2)


def test_the_flow(run_flow, tmp_path):
    run = run_flow(FLOW, config=tiny(tmp_path, iterations=1)).run
    check(run.data.history, 1)
    assert "adapter/adapter_model.safetensors" in run.data.policy
