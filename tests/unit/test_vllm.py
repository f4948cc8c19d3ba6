"""What the engine asks of vLLM and how it treats its worker; vLLM itself is tested in tests/vllm."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config.errors import ConfigError, EngineError
from components.config.sections import PolicyConfig
from components.generation import Sampling, _vllm_process
from components.generation.vllm import VllmEngine
from components.policy import model as policies
from components.run_config import parse
from support.models.tiny import EOS, PAD, make_policy, make_prompts

SEEDS = np.array([[1, 2]], dtype=np.uint64)


@pytest.fixture
def saved(tmp_path):
    """A policy directory."""
    policy = make_policy()
    policy.model.save_pretrained(tmp_path / "policy")
    policy.tokenizer.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def load(folder, **options):
    return policies.load(folder, PolicyConfig(), device=torch.device("meta"), **options)


# A policy without weights


def test_a_policy_without_weights_is_otherwise_the_same(saved):
    (saved / "model.safetensors").unlink()
    (saved / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, 7]}))
    policy = load(saved)
    assert all(p.device.type == "meta" for p in policy.model.parameters())
    assert (policy.eos_ids, policy.pad_id, policy.folder) == ((EOS, 7), PAD, saved)
    for prompt in make_prompts(4):
        assert policy.encode(prompt) == make_policy().encode(prompt)


# Before vLLM starts


def test_vllm_must_be_installed(monkeypatch, saved):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"requirements-vllm\.txt"):
        VllmEngine().check()
    with pytest.raises(EngineError, match=r"requirements-vllm\.txt"):
        VllmEngine().sample(load(saved), [[5]], SEEDS, Sampling(4))


def test_a_folder_named_vllm_is_not_vllm(monkeypatch, tmp_path):
    (tmp_path / "vllm").mkdir()
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(EngineError, match="not installed"):
        VllmEngine().check()


def test_a_temperature_that_vllm_would_change(monkeypatch, saved):
    monkeypatch.setattr(VllmEngine, "check", lambda self: None)
    with pytest.raises(EngineError, match=r"generation.temperature: 0.005 is below the 0.01"):
        VllmEngine().sample(load(saved), [[5]], SEEDS, Sampling(4, temperature=0.005))


def arguments(folder, length=10, *, engine=None, **options):
    return (engine or VllmEngine())._arguments(load(folder, **options), folder, length)


@pytest.mark.parametrize(("positions", "length", "expected"), [(4096, 257, 512), (4096, 512, 512), (300, 257, 300)])
def test_model_lengths_are_rounded_within_the_models(saved, positions, length, expected):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    assert arguments(saved, length)["max_model_len"] == expected


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_the_policys_precision_is_vllms(saved, precision, dtype):
    assert arguments(saved, precision=precision)["dtype"] == dtype


def test_memory_on_a_cpu_and_on_a_gpu(saved, monkeypatch):
    monkeypatch.setattr(policies, "best_device", lambda: torch.device("cpu"))
    assert arguments(saved)["kv_cache_memory_bytes"] == 2**30
    assert arguments(saved)["enable_chunked_prefill"] is False
    assert arguments(saved, engine=VllmEngine(kv_cache_mb=64))["kv_cache_memory_bytes"] == 2**26
    monkeypatch.setattr(policies, "best_device", lambda: torch.device("cuda"))
    assert arguments(saved)["kv_cache_memory_bytes"] is None
    assert "enable_chunked_prefill" not in arguments(saved)


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (64, 64)])
def test_an_adapter(saved, rank, room):
    assert "enable_lora" not in arguments(saved)
    (saved / "adapter").mkdir()
    (saved / "adapter" / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert arguments(saved)["enable_lora"]
    assert arguments(saved)["max_lora_rank"] == room


# The worker, a stand-in


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(code, progress)`: runs a worker of that code."""

    def run(code, progress=lambda *_, **__: None):
        (tmp_path / "stand_in.py").write_text(f"import json, os, signal, subprocess, sys, time\n{code}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(_vllm_process, "WORKER", "stand_in")
        monkeypatch.setattr(_vllm_process, "GRACE", 0.2)
        (tmp_path / "work").mkdir()
        _vllm_process.run(tmp_path / "work", 3, progress)

    return run


CHILD = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("processes", "w") as file:
    json.dump([os.getpid(), child.pid], file)
print(json.dumps({"done": 1, "tokens": 1}), flush=True)
"""


def running(folder: Path) -> list[int]:
    """Which of the worker and its child still run."""
    found = []
    for process in json.loads((folder / "work" / "processes").read_text()):
        status = Path(f"/proc/{process}/status")
        if status.exists() and "State:\tZ" not in status.read_text():
            found.append(process)
    return found


def test_progress_is_told(run):
    calls = []
    run(
        'for i in (1, 3): print(json.dumps({"done": i, "tokens": 8}), flush=True)',
        lambda *done, **_: calls.append(done),
    )
    assert calls == [(1, 3), (3, 3)]


def test_what_vllm_refuses(run):
    with pytest.raises(EngineError, match="does not take this policy: no such architecture") as caught:
        run('print(json.dumps({"refused": "no such architecture " + 10_000 * "x"}))')
    assert len(str(caught.value)) < 1500


def test_a_failure_shows_the_end_of_the_log(run):
    code = 'for i in range(50): print("line", i, file=sys.stderr)\nsys.exit("out of memory" + 1000 * "!")'
    with pytest.raises(EngineError, match=r"vLLM ended with status 1(?s:.*)line 49\nout of memory") as caught:
        run(code)
    assert "line 30" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_killed_worker(run):
    with pytest.raises(EngineError, match="vLLM was killed by SIGKILL"):
        run("os.kill(os.getpid(), signal.SIGKILL)")


@pytest.mark.thorough(but=["sys.exit(1)"])
@pytest.mark.parametrize("end", ["", "sys.exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_helpers_of_the_worker_do_not_outlive_it(run, tmp_path, wait_for, end):
    # Its output is not theirs: the channel would stay open as long as they live.
    code = CHILD.replace('sleep(600)"]', 'sleep(600)"], stdout=sys.stderr')
    if end:
        with pytest.raises(EngineError):
            run(code + end)
    else:
        run(code)
    wait_for(lambda: not running(tmp_path))


def test_an_error_in_the_task_ends_worker_and_helpers(run, tmp_path, wait_for):
    def stop(done, total, **figures):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(CHILD + "time.sleep(600)", stop)
    wait_for(lambda: not running(tmp_path))


def test_the_worker_gets_the_tasks_threads(run, tmp_path):
    run('open("threads", "w").write(os.environ["OMP_NUM_THREADS"])')
    assert (tmp_path / "work" / "threads").read_text() == str(torch.get_num_threads())
    assert os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") is None  # the task's own environment is left alone


def test_an_on_policy_algorithm_needs_an_engine_that_sees_its_training():
    with pytest.raises(ConfigError, match=r"generation.engine: vllm samples from files, and jbond samples from"):
        parse("demo: {}\nalgorithm: {name: jbond}\ngeneration: {engine: {name: vllm}}")
