"""Which engine runs `llm_judge`: its settings, what does not go with it, and what is said before work starts."""

from __future__ import annotations

import sys

import pytest
import yaml

from components.config.errors import ConfigError, JudgeError
from components.config.registry import build
from components.judges import Judge
from components.run_config import checked, parse
from support.models.tiny import make_policy

VLLM = {"name": "vllm", "gpu_memory_utilization": 0.5, "enforce_eager": True}
BASE = {"policy": {"model": "m"}, "prompts": {"train": "p.jsonl"}}


def config(engine, algorithm="wind", **changes):
    judge = {"name": "llm_judge", "model": "j", "engine": engine}
    return {**BASE, "judge": judge, "algorithm": {"name": algorithm}, **changes}


def test_the_settings_are_those_of_the_generation_engine():
    judge = checked(config(VLLM)).judge
    assert judge.engine.model_dump() == {
        "name": "vllm",
        "batch_size": 256,
        "tensor_parallel": 1,
        "gpu_memory_utilization": 0.5,
        "kv_cache_mb": None,
        "prefix_caching": True,
        "enforce_eager": True,
    }
    written = parse(yaml.safe_dump(config(VLLM)))
    assert checked(written).judge == judge  # as a task reads it


def test_the_default_is_transformers():
    judge = build("judges", {"name": "llm_judge", "model": "j"}, Judge)
    assert judge.engine.name == "transformers"
    assert not judge.starts_anew


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("vllm", r"judge\.engine: 'vllm' cannot be used\. Write a mapping"),
        ({"name": "vlm"}, r"judge\.engine\S*: there is no 'vlm'\. Use one of: .*vllm"),
        ({"name": "vllm", "gpu_memory": 0.5}, r"judge\.engine\.gpu_memory: .*gpu_memory_utilization"),
        ({"name": "vllm", "gpu_memory_utilization": 1.5}, r"judge\.engine\.gpu_memory_utilization: 1\.5"),
        ({"name": "transformers", "batch_size": 8}, r"judge\.engine: .*Set judge\.tokens_per_batch instead"),
    ],
)
def test_what_no_judge_can_run_on(engine, message):
    with pytest.raises(ConfigError, match=message):
        checked(config(engine))


@pytest.mark.parametrize("judge", [{}, {"ensemble": True}])
def test_an_algorithm_that_judges_at_every_step_needs_a_judge_that_stays(judge):
    values = config(VLLM, algorithm="jbond")
    if judge:
        values["judge"] = {"name": "ensemble", "judges": [values["judge"], {"name": "verifier", "function": "a:b"}]}
    with pytest.raises(ConfigError, match=r"judge\.engine: vllm starts anew .*jbond .*\{name: transformers\}"):
        checked(values)
    values["algorithm"] = {"name": "wind"}
    checked(values)


def test_gpus_of_the_judge_count_where_it_judges():
    run = checked(config({**VLLM, "tensor_parallel": 2}))
    assert {kind: run.num_gpus(kind) for kind in ("start", "generate", "score", "train", "evaluate")} == {
        "start": 2,
        "generate": 1,
        "score": 2,
        "train": 1,
        "evaluate": 2,
    }
    with pytest.raises(ConfigError, match=r"resources\.score\.gpu: 1 is too few, judge\.engine\.tensor_parallel is 2"):
        checked(config({**VLLM, "tensor_parallel": 2}, resources={"score": {"gpu": 1}}))


def test_another_engine_is_the_same_judge():
    """Runs that continue keep what verdicts follow from."""
    ours, theirs = (checked(config(engine)).judge for engine in (VLLM, {"name": "transformers"}))
    assert ours.deciding() == theirs.deciding()
    assert ours.deciding()["model"] == "j"


def test_vllm_must_be_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    judge = build("judges", {"name": "llm_judge", "model": str(tmp_path), "engine": VLLM}, Judge)
    with pytest.raises(JudgeError, match=r"^judge\.engine: vLLM is not installed\. Run pip install -r require"):
        judge.check()


@pytest.fixture
def installed(monkeypatch):
    """As if vLLM were there; what comes before its start is judged alike."""
    monkeypatch.setattr("components.generation.vllm._require_installed", lambda key: None)


def save(folder):
    """A policy, written into the folder."""
    policy = make_policy()
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return policy


def test_what_can_be_told_without_a_start(installed, tmp_path):
    make_policy().tokenizer.save_pretrained(tmp_path)
    for folder in (tmp_path / "nowhere", tmp_path):
        judge = build("judges", {"name": "llm_judge", "model": str(folder), "engine": VLLM}, Judge)
        with pytest.raises(JudgeError, match=r"^judge\.model: "):
            judge.check()


def test_verdicts_that_are_no_token_are_refused_before_vllm_starts(installed, tmp_path):
    save(tmp_path)
    judge = build(
        "judges", {"name": "llm_judge", "model": str(tmp_path), "engine": VLLM, "verdicts": ["?", "!"]}, Judge
    )
    with pytest.raises(JudgeError, match=r"^judge\.verdicts: '\?' is not one token"):
        judge.check()


def test_the_token_that_vllm_draws_needs_a_position(installed, tmp_path):
    policy = save(tmp_path)
    positions = policy.model.config.max_position_embeddings
    words = " ".join(["c"] * positions)
    own = {"name": "llm_judge", "model": str(tmp_path), "engine": VLLM, "verdicts": ["a", "b"]}
    judge = build("judges", {**own, "prompt": f"{words} {{prompt}} {{response_a}} {{response_b}}"}, Judge)
    with pytest.raises(JudgeError, match=rf"and it reads {positions - 1} at most"):
        judge.check()
