"""`llm_judge` on vLLM in a run's stages: `start` checks it, and `score` keeps the verdicts that transformers gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components import prompts, stages
from components.data.records import Prompt
from components.run_config import RunConfig, checked
from components.stages import sampling
from components.stages.context import open_workspace
from support.models.served import needs_vllm, save_llama

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm, pytest.mark.thorough]


def config(policy: Path, file: Path, engine: dict[str, object]) -> RunConfig:
    return checked(
        {
            "policy": {"model": str(policy), "precision": "fp32"},
            "prompts": {"train": str(file), "held_out": 2, "per_iteration": 4, "shards": 1},
            "generation": {"responses": 3, "max_new_tokens": 6},
            "judge": {
                "name": "llm_judge",
                "model": str(policy),
                "precision": "fp32",
                "prompt": "{prompt} q {response_a} r {response_b} s",
                "verdicts": ["a", "b"],
                "min_verdict_mass": 0.0,
                "engine": engine,
            },
            "evaluation": {"responses": 1},
            "training": {"batch_size": 4, "micro_batch_size": 4},
            "resources": {kind: {"cpu": 1} for kind in ("start", "plan", "generate", "score")},
        }
    )


def test_start_and_score(tmp_path):
    texts = ["a b", "c", "d e f", "g h", "i", "j k l"]
    file = tmp_path / "train.jsonl"
    prompts.save([Prompt(f"p{i}", ({"role": "user", "content": text},)) for i, text in enumerate(texts)], file)
    policy, root = save_llama(tmp_path / "policy"), str(tmp_path / "store")
    own = config(policy, file, {"name": "vllm", "enforce_eager": True, "kv_cache_mb": 64})
    with open_workspace(own, root, "start") as work:
        started = stages.start(work)
    with open_workspace(own, root, "plan") as work:
        [shard] = stages.plan(work, started.prompts, 1)
    with open_workspace(own, root, "generate", precision=started.precision) as work:
        drawn = stages.generate(work, started.policy, shard, 1)
    with open_workspace(own, root, "score", precision=started.precision) as work:
        found = work.scored([stages.score(work, started.policy, started.policy, drawn, shard)])
        other = config(policy, file, {"name": "transformers"}).judge
        expected = sampling.judge(other, work.prompts(shard, "shard"), [work.rollout(drawn)])
    np.testing.assert_allclose(found.preference, expected.preference, atol=1e-5)
    assert found.preference.shape == (4, 3, 3)
    assert np.ptp(found.preference) > 0.01
