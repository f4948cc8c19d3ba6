"""Training at size on a GPU: what saves memory does save some, and computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from components.algorithms.wind import Wind
from components.config.sections import LoraConfig, TrainingConfig
from components.data.records import Prompt, Ragged, Responses, Scored
from components.judges import _models
from components.judges.reward_model import RewardModel
from components.policy import lora
from components.policy.model import Policy
from components.training.gradient_checkpointing import checkpointed
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.models import words
from support.models.families import FAMILIES, save_reward_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False"),
]

VOCABULARY, K, N, LENGTH = 2048, 4, 8, 192


def make_policy(**changes) -> Policy:
    """A Llama with random weights on the GPU."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = LlamaConfig(vocab_size=VOCABULARY, **shape | changes, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    return Policy(LlamaForCausalLM(config).cuda().eval(), words.make_tokenizer(), (1,), 2, "fp32")


def make_scored() -> Scored:
    rng = np.random.default_rng(0)
    prompts = Ragged.of(rng.integers(3, VOCABULARY, 16) for _ in range(N))
    responses = Ragged.of(rng.integers(3, VOCABULARY, LENGTH) for _ in range(N * K))
    wins = np.triu(rng.random((N, K, K)), 1)
    preference = wins + np.tril(1 - wins.swapaxes(1, 2), -1) + 0.5 * np.eye(K)
    logp = np.full((N, K), -LENGTH * np.log(VOCABULARY))
    return Scored(Responses([f"p{i}" for i in range(N)], prompts, responses), logp, logp, preference, np.zeros((N, K)))


def trained(policy: Policy, **settings) -> tuple[dict[str, torch.Tensor], int, dict[str, float]]:
    """Trained weights, peak memory in bytes, and the figures of one optimiser step."""
    config = TrainingConfig(**{"batch_size": N, "micro_batch_size": N, "schedule": "constant"} | settings)
    state = TrainingState(policy, make_optimizer(policy, config), config.micro_batch_size)
    torch.cuda.reset_peak_memory_stats()
    figures = train(state, make_scored(), Wind(beta=0.02, eta=10.0, clip=None), Schedule(config, 1, 1, seed=0))
    weights = {name: p.detach().cpu() for name, p in policy.model.named_parameters() if p.requires_grad}
    return weights, torch.cuda.max_memory_allocated(), figures | {"micro_batch_size": state.micro_batch_size}


def test_gradient_checkpointing_takes_less_memory_for_the_same_step():
    plain, most, figures = trained(make_policy())
    again, less, same = trained(checkpointed(make_policy()))
    assert less < 0.7 * most
    assert same["grad_norm"] == pytest.approx(figures["grad_norm"], rel=1e-3)
    far = torch.cat([(plain[name] - again[name]).abs().flatten() for name in plain])
    assert (far < 1e-7).float().mean() > 0.99  # Adam's first step is the gradient's sign, also of one near zero


def test_an_adapter_trains_alone():
    policy = make_policy()
    frozen = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    lora.add(policy.model, LoraConfig(rank=4), seed=0)
    weights, _, figures = trained(policy, learning_rate=1e-2)
    assert all("lora" in name for name in weights)
    assert figures["grad_norm"] > 0
    now = {name.replace(".base_layer", ""): p for name, p in policy.model.named_parameters()}
    assert all(torch.equal(now[name], before) for name, before in frozen.items())


def test_moments_in_8_bits_take_a_step_like_those_in_32():
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: requirements-dev.txt has it")
    before = {name: p.detach().cpu().clone() for name, p in make_policy().model.named_parameters()}
    full, _, _ = trained(make_policy(), learning_rate=1e-3)
    short, _, _ = trained(make_policy(), learning_rate=1e-3, optimizer="adamw_8bit")
    steps = [torch.cat([(w[name] - before[name]).flatten() for name in before]) for w in (full, short)]
    assert torch.nn.functional.cosine_similarity(*steps, dim=0) > 0.99


def test_the_micro_batch_is_halved_when_memory_runs_out():
    _, peak, _ = trained(make_policy())
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.8 * peak / total)
    try:
        _, _, figures = trained(make_policy())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert figures["micro_batch_size"] in (N // 2, N // 4, 1)


def test_an_unloaded_judge_leaves_its_memory(tmp_path):
    folder = save_reward_model(FAMILIES["qwen2.5"], tmp_path, hidden_size=256, num_attention_heads=4)
    judge = RewardModel(model=str(folder))
    job = [Prompt("p", ({"role": "user", "content": "Hi there"},))], [["one", "two"]]
    judge.judge(*job)  # its first products leave a workspace of cuBLAS, which no judge owns
    judge.unload()
    before = torch.cuda.memory_allocated()
    judge.judge(*job)
    assert torch.cuda.memory_allocated() > before + 1_000_000
    judge.unload()
    assert _models._load.cache_info().currsize == 0
    assert torch.cuda.memory_allocated() == before


CLAIM = """
from components.runtime import gpus
names = gpus.visible()
with gpus.claim(names, 1):
    import torch
    print(len(names), torch.cuda.device_count(), torch.zeros(1, device="cuda").device)
"""


REPEATED = """
import hashlib, sys
sys.path[:0] = ["tests/gpu", "tests"]
from components.runtime import determinism
determinism.require(gpu=True)
from dataclasses import replace
from test_gpu_training import make_policy, trained
policy = replace(make_policy(num_key_value_heads=2), precision="bf16")
weights, *_ = trained(policy, epochs=3, batch_size=4, micro_batch_size=2)
digest = hashlib.sha256()
for name in sorted(weights):
    digest.update(weights[name].numpy().tobytes())
print(digest.hexdigest())
"""


def test_deterministic_training_gives_the_same_bits_in_two_processes():
    command = [sys.executable, "-c", REPEATED]
    root = Path(__file__).parents[2]
    first, second = (subprocess.run(command, check=False, cwd=root, capture_output=True, text=True) for _ in range(2))
    assert not first.returncode, first.stderr
    assert len(first.stdout) == 65
    assert first.stdout == second.stdout


def test_a_claim_shows_one_gpu_to_cuda():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", CLAIM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(torch.cuda.device_count()), "1", "cuda:0"]
