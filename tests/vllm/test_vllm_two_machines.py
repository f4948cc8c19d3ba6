"""What vLLM has compiled on one machine, another loads from the store and draws the same with."""

from __future__ import annotations

import numpy as np
import pytest

from components.generation import Sampling
from components.generation.vllm import VllmEngine
from components.store import open_store
from support.models.served import load, needs_vllm, save_llama

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm, pytest.mark.thorough]

PROMPTS, SEEDS = [[0, 7, 8, 9], [10]], np.arange(40, dtype=np.uint64).reshape(2, 20)


def test_another_machine_loads_what_is_compiled_and_draws_the_same(tmp_path, monkeypatch):
    engine = VllmEngine(kv_cache_mb=256, batch_size=40).keeping(open_store(str(tmp_path / "store")))
    policy = load(save_llama(tmp_path / "policy"))
    drawn, compiled = [], []
    for machine in ("a", "b"):
        monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / machine))
        drawn.append(engine.sample(policy, PROMPTS, SEEDS, Sampling(8)))
        files = (tmp_path / machine).rglob("rank_0_0/model")  # written anew, with other bytes, by who compiles
        compiled.append([(file.relative_to(tmp_path / machine), file.read_bytes()) for file in files])
    assert len(compiled[0]) == 1
    assert compiled[0] == compiled[1]
    np.testing.assert_array_equal(drawn[0].tokens.values, drawn[1].tokens.values)
