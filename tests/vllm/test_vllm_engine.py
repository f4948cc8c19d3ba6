"""vLLM itself: what it draws, that it keeps the contract of the transformers engine, and that nothing of it is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from components.config.errors import EngineError
from components.config.sections import LoraConfig
from components.data.records import Ragged
from components.generation import Samples, Sampling
from components.generation.transformers import TransformersEngine
from components.generation.vllm import VllmEngine
from components.policy import lora
from components.policy.logprobs import score_responses
from support.models.served import EOS, OTHER_EOS, WORDS, load, needs_vllm, save_llama, save_tokenizer

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm, pytest.mark.thorough]

ENGINE = VllmEngine(enforce_eager=True, kv_cache_mb=256)
K, LIMIT = 400, 12
# On a CPU vLLM's prefix cache holds blocks of 128 tokens, so the third prompt is read from it.
PROMPTS = [[0, 7, 8, 9], [10], np.random.default_rng(0).integers(5, len(WORDS), 140).tolist(), [11, 12, 13], [0, 7, 8]]
SEEDS = np.random.default_rng(1).integers(0, 2**64, (len(PROMPTS), K), dtype=np.uint64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_llama(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def trainer(folder):
    return load(folder, weights=True)


@pytest.fixture(scope="module")
def progress() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def sampled(folder, progress) -> Samples:
    """K responses to each prompt; one start of vLLM that most tests share."""
    return ENGINE.sample(load(folder), PROMPTS, SEEDS, Sampling(LIMIT), lambda *done, **_: progress.append(done))


@pytest.fixture(scope="module")
def sampled_by_transformers(trainer) -> Samples:
    return TransformersEngine().sample(trainer, PROMPTS, SEEDS, Sampling(LIMIT))


def rows_of(samples: Samples) -> list[list[int]]:
    return [samples.tokens[i].tolist() for i in range(len(samples.tokens))]


# The contract


def test_a_response_ends_with_its_first_eos_or_at_the_limit(sampled):
    rows = rows_of(sampled)
    assert len(rows) == len(PROMPTS) * K
    assert sampled.finished.shape == (len(PROMPTS), K)
    for row, ended in zip(rows, sampled.finished.reshape(-1), strict=True):
        assert not {EOS, OTHER_EOS} & set(row[:-1])
        assert ended == (row[-1] in (EOS, OTHER_EOS))
        assert ended or len(row) == LIMIT
    assert {row[-1] for row in rows} >= {EOS, OTHER_EOS}
    assert any(len(row) == LIMIT and row[-1] == EOS for row in rows)  # finished, not cut off
    assert 0.2 < sampled.finished.mean() < 0.9


def test_progress_counts_up_to_all_responses(sampled, progress):
    done = [d for d, _ in progress]
    assert done == sorted(done)
    assert progress[-1] == (SEEDS.size, SEEDS.size)
    assert len(set(done)) > 5


def test_responses_follow_their_seed_and_prompt_in_any_company(sampled, folder):
    """Bit by bit on a CPU: fewer responses to other prompts in another order, one of them twice."""
    chosen = [2, 0, 2, 4]
    again = ENGINE.sample(load(folder), [PROMPTS[i] for i in chosen], SEEDS[chosen, :30], Sampling(LIMIT))
    rows, rows_again = rows_of(sampled), rows_of(again)
    assert rows_again == [rows[i * K + k] for i in chosen for k in range(30)]
    np.testing.assert_allclose(again.logp, sampled.logp[chosen, :30], rtol=1e-6)


def test_other_seeds_give_other_responses(sampled):
    rows = [tuple(row) for row in rows_of(sampled) if len(row) == LIMIT]
    assert len(set(rows)) == len(rows) > 500  # 24^12 sequences


# The distribution


def quantile(degrees):
    """99.99 % quantile of chi-square by Wilson and Hilferty's approximation."""
    return degrees * (1 - 2 / (9 * degrees) + 3.719 * np.sqrt(2 / (9 * degrees))) ** 3


@pytest.mark.parametrize("prompt", range(len(PROMPTS)))
def test_first_tokens_follow_the_model(sampled, trainer, prompt):
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([PROMPTS[prompt]])).logits[0, -1].double()
    expected = K * logits.softmax(-1).numpy()
    first = [sampled.tokens[prompt * K + k][0] for k in range(K)]
    found = np.bincount(first, minlength=len(expected))
    rare = expected < 5  # together in one bin, else the statistic does not follow chi-square
    found, expected = (np.append(x[~rare], x[rare].sum()) for x in (found, expected))
    assert expected.min() > 1
    assert ((found - expected) ** 2 / expected).sum() < quantile(len(expected) - 1)


def test_lengths_are_those_of_the_transformers_engine(sampled, sampled_by_transformers):
    """Pearson's test of homogeneity for two samples of one size."""
    ours, theirs = (np.bincount(s.tokens.lengths, minlength=LIMIT + 1)[1:] for s in (sampled, sampled_by_transformers))
    assert (ours + theirs).min() > 10
    assert ((ours - theirs) ** 2 / (ours + theirs)).sum() < quantile(LIMIT - 1)


def test_mean_log_prob_is_that_of_the_transformers_engine(sampled, sampled_by_transformers, trainer):
    prompts = Ragged.of(PROMPTS)
    ours, theirs = (score_responses(trainer, prompts, s.tokens) for s in (sampled, sampled_by_transformers))
    error = np.sqrt((ours.var(1) + theirs.var(1)) / K)
    assert (np.abs(ours.mean(1) - theirs.mean(1)) < 4 * error).all()


def test_log_probs_agree_with_the_trainers_forward(sampled, trainer):
    """Sums of twelve fp32 log-probs of a few nats: 2e-5 was seen."""
    exact = score_responses(trainer, Ragged.of(PROMPTS), sampled.tokens)
    np.testing.assert_allclose(sampled.logp, exact, atol=2e-4)


def test_bf16_temperature_and_nucleus(folder, trainer):
    """Tokens come from the nucleus of the tempered distribution; log-probs are those of the policy itself."""
    sampling = Sampling(4, temperature=0.7, top_p=0.6)
    samples = ENGINE.sample(load(folder, precision="bf16"), PROMPTS, SEEDS[:, :100], sampling)
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    ordered, order = (logits / 0.7).softmax(-1).sort(descending=True)
    nucleus = order[: int((ordered.cumsum(-1) < 0.6 - 0.02).sum()) + 1].tolist()  # bf16 moves probabilities a little
    outside = order[int((ordered.cumsum(-1) < 0.6 + 0.02).sum()) + 1 :].tolist()
    first = {int(samples.tokens[k][0]) for k in range(100)}
    assert not first & set(outside)
    assert len(first & set(nucleus)) > len(nucleus) / 2
    exact = score_responses(trainer, Ragged.of(PROMPTS), samples.tokens)
    differences = np.abs(samples.logp - exact) / samples.tokens.lengths.reshape(exact.shape)
    assert differences.max() < 0.2  # nats a token: bf16 keeps 8 bits of every activation
    assert differences.max() > 1e-4  # and is not fp32


# An adapter


def test_an_adapter_is_applied(folder, tmp_path):
    adapted = Path(shutil.copytree(folder, tmp_path / "adapted"))
    trained = load(folder, weights=True)
    lora.add(trained.model, LoraConfig(rank=3, alpha=6), seed=0)
    generator = torch.Generator().manual_seed(0)
    for weight in lora.weights(trained.model).values():
        weight.data = torch.randn(weight.shape, generator=generator) / 5
    lora.save(trained.model, adapted)

    samples = ENGINE.sample(load(adapted), PROMPTS[:2], SEEDS[:2, :20], Sampling(LIMIT))
    expected = score_responses(trained, Ragged.of(PROMPTS[:2]), samples.tokens)
    np.testing.assert_allclose(samples.logp, expected, atol=2e-4)
    plain = score_responses(load(folder, weights=True), Ragged.of(PROMPTS[:2]), samples.tokens)
    assert np.abs(plain - expected).mean() > 1


# What it refuses


def test_an_architecture_that_vllm_does_not_know(tmp_path):
    config = OpenAIGPTConfig(vocab_size=len(WORDS), n_positions=64, n_embd=32, n_layer=1, n_head=1, eos_token_id=EOS)
    OpenAIGPTLMHeadModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(EngineError, match=r"vLLM does not take this policy(.|\n)*OpenAIGPTLMHeadModel"):
        ENGINE.sample(load(tmp_path), [[5]], SEEDS[:1, :2], Sampling(4))


def test_weights_that_are_not_finite_are_an_error(folder, tmp_path):
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FloatingPointError, match="not finite"):
        ENGINE.sample(load(broken), [[5]], SEEDS[:1, :2], Sampling(4))


# What is left


def processes_with(marker: str) -> set[int]:
    """Processes that inherited the environment variable, zombies not counted."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"WIND_TEST={marker}" in (entry / "environ").read_text("utf-8", "replace"):
                found.add(int(entry.name))
        except (ProcessLookupError, FileNotFoundError, PermissionError):
            continue
    return found - {os.getpid()}


SAMPLE = """
import sys
from pathlib import Path
import numpy as np
from support.models.served import load
from components.generation import Sampling
from components.generation.vllm import VllmEngine

engine = VllmEngine(enforce_eager=True, kv_cache_mb=256, tensor_parallel=int(sys.argv[2]))
seeds = np.arange(20_000, dtype=np.uint64).reshape(1, -1)
engine.sample(load(Path(sys.argv[1])), [[5]], seeds, Sampling(400), lambda *_, **__: print("sampling", flush=True))
"""


@pytest.mark.parametrize(("gpus", "helpers"), [(1, 1), (2, 4)])
def test_nothing_is_left_of_a_killed_task(folder, wait_for, gpus, helpers):
    """One worker while it samples; and while they start, a worker, two that share the model and what tracks them."""
    marker = uuid.uuid4().hex
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # A CPU without a second memory node has no place of its own for a second worker.
    env = {**os.environ, "PYTHONPATH": path, "WIND_TEST": marker, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    command = [sys.executable, "-c", SAMPLE, str(folder), str(gpus)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as task:
        if gpus == 1:
            assert task.stdout.readline() == b"sampling\n"
        wait_for(lambda: len(processes_with(marker)) > helpers, seconds=600)
        task.send_signal(signal.SIGKILL)
    wait_for(lambda: processes_with(marker) == set())
