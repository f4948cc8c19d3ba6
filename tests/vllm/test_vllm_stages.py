"""A run's stages on vLLM: what `start` and `generate` hand over to it."""

from __future__ import annotations

import numpy as np
import pytest

from components import prompts, stages
from components.data.records import Prompt, Rollout
from components.policy.logprobs import score_responses
from components.run_config import RunConfig, checked
from components.stages.context import open_workspace
from support.models.served import EOS, OTHER_EOS, WORDS, load, needs_vllm, save_llama

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm, pytest.mark.thorough]

K, LIMIT = 4, 8


def count_words(response, prompt):
    return len(response.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory) -> RunConfig:
    texts = ["a b", "c", "d e f", "g h", "i", "j k l"]
    questions = [Prompt(f"p{i}", ({"role": "user", "content": text},)) for i, text in enumerate(texts)]
    file = tmp_path_factory.mktemp("prompts") / "train.jsonl"
    prompts.save(questions, file)
    return checked(
        {
            "policy": {"model": str(folder), "precision": "fp32"},
            "prompts": {"train": str(file), "held_out": 2, "per_iteration": 4, "shards": 1},
            "generation": {
                "engine": {"name": "vllm", "enforce_eager": True, "kv_cache_mb": 256},
                "responses": K,
                "max_new_tokens": LIMIT,
            },
            "judge": {"name": "verifier", "function": f"{__name__}:count_words"},
            "training": {"batch_size": 4, "micro_batch_size": 4},
            "resources": {kind: {"cpu": 1} for kind in ("start", "plan", "generate")},
        }
    )


def check(rollout: Rollout, folder, n: int, k: int) -> None:
    """The prompts have BOS once, responses end as they must, and their texts are theirs."""
    assert rollout.shape == (n, k)
    policy = load(folder, weights=True)
    for i in range(n):
        assert (rollout.prompt_tokens[i] == 0).sum() == 1
        for j in range(k):
            row = rollout.tokens[i * k + j].tolist()
            assert rollout.finished[i, j] == (row[-1] in (EOS, OTHER_EOS))
            assert rollout.group(i)[j] == policy.decode([row])[0]
    logp = score_responses(policy, rollout.prompt_tokens, rollout.tokens) / rollout.tokens.lengths.reshape(n, k)
    assert logp.mean() > -np.log(len(WORDS))  # likelier than random ones: drawn from this policy


def test_start_and_generate(config, folder, tmp_path):
    root = str(tmp_path / "store")
    with open_workspace(config, root, "start") as work:
        started = stages.start(work)
        check(work.rollout(started.evaluated), folder, 2, config.evaluation.responses)
    with open_workspace(config, root, "plan") as work:
        (shard,) = stages.plan(work, started.prompts, 1)
    with open_workspace(config, root, "generate", precision=started.precision) as work:
        check(work.rollout(stages.generate(work, started.policy, shard, 1)), folder, 4, K)
