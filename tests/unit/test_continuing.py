"""What `start` checks of a run that continues from another, whose model it knows: before any work."""

from __future__ import annotations

import importlib.util

import pytest
import yaml
from transformers import LlamaConfig, OpenAIGPTConfig

from components import prompts, stages
from components.config.errors import ConfigError, PolicyError, PromptError
from components.data.records import Prompt
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from components.stages.handover import Started
from components.stages.origin import Origin
from support.models.words import SHAPE

CONFIG = """
policy: {model: base}
prompts: {train: prompts.jsonl, per_iteration: 4, shards: 1}
judge: {name: verifier, function: "support.runs:total"}
"""
LLAMA = LlamaConfig(**{**SHAPE, "hidden_size": 64})
# The library's classes of before there were layers that it can checkpoint
UNLAYERED = OpenAIGPTConfig(vocab_size=60, n_positions=64, n_embd=16, n_layer=2, n_head=4)


def config(text="", **training):
    return RunConfig.model_validate(parse(CONFIG + text + yaml.safe_dump({"training": training})))


def earlier(root, model, settings):
    """Where a run stood that began with such a model; of its weights there is nothing to read."""
    with open_workspace(settings, root, "start") as work:
        policy, asked = work.new_folder(), work.new_folder()
        model.save_pretrained(policy)
        (policy / "model.safetensors").write_text("none")
        for name in ("train", "evaluation"):
            some = [Prompt(f"{name}{i}", ({"role": "user", "content": f"w{i}"},)) for i in range(6, 10)]
            prompts.save(some, asked / f"{name}.jsonl")
        files, kept = work.keep_files(policy), work.keep_files(asked)
        started = Started(policy=files, prompts=kept, evaluated=kept, reward=0.0, precision="fp32")
        last = {"policy": files, "optimizer": kept, "evaluated": kept}
        return Origin("WindFlow/1", settings.model_dump(), work.store.root, started, **last, history=None, iteration=1)


def start(tmp_path, settings, model=LLAMA, before=None):
    origin = earlier(str(tmp_path / "store"), model, before or settings)
    with open_workspace(settings, origin.store_root, "start") as work:
        return origin, stages.start(work, origin)


@pytest.mark.parametrize(
    "training", [{}, {"processes": 2, "nodes": 3}, {"gradient_checkpointing": True}, {"lora": {"rank": 4}}]
)
def test_what_the_model_allows(tmp_path, training):
    origin, started = start(tmp_path, config(**training))
    assert started == origin.started


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"processes": 2},
            "training.processes: OpenAIGPTLMHeadModel has no GradientCheckpointingLayer, as the models that come with "
            "transformers have. Train in one process: training.processes: 1.",
        ),
        ({"nodes": 2}, "training.nodes: OpenAIGPTLMHeadModel has no "),
        ({"gradient_checkpointing": True}, "training.gradient_checkpointing: OpenAIGPTLMHeadModel has no "),
    ],
)
def test_a_model_that_does_not_say_which_its_layers_are(tmp_path, training, message):
    with pytest.raises(PolicyError) as caught:
        start(tmp_path, config(**training), UNLAYERED, before=config())
    assert str(caught.value).startswith(message)


def test_an_adapter_that_fits_nowhere(tmp_path):
    with pytest.raises(ConfigError, match=r"^training\.lora\.target_modules: 'nowhere' is no linear layer"):
        start(tmp_path, config(lora={"target_modules": ["nowhere"]}))


@pytest.mark.parametrize(("processes", "nodes"), [(3, 1), (1, 3)])
def test_moments_of_8_bits_that_as_many_processes_cannot_share(tmp_path, monkeypatch, processes, nodes):
    """64 rows of 64 are no multiple of 3."""
    find = importlib.util.find_spec
    installed = lambda name, *more: True if name == "bitsandbytes" else find(name, *more)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", installed)
    before = config(optimizer="adamw_8bit")
    with pytest.raises(ConfigError, match=r"^training\.optimizer: .* cannot be shared by 3 processes"):
        start(tmp_path, config(optimizer="adamw_8bit", processes=processes, nodes=nodes), before=before)
    _, started = start(tmp_path, config(optimizer="adamw_8bit", processes=2), before=before)
    assert started.precision == "fp32"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evaluation: {group_by: kind}\n", r"^evaluation\.group_by: no evaluation prompt has a field 'kind'"),
        ("", r"^prompts\.per_iteration: 4 "),
    ],
)
def test_prompts_that_do_not_suffice(tmp_path, text, message):
    settings = config(text)
    origin = earlier(str(tmp_path / "store"), LLAMA, settings)
    with open_workspace(settings, origin.store_root, "start") as work:
        if not text:
            few = work.new_folder()
            prompts.save(work.prompts(origin.started.prompts, "train")[:3], few / "train.jsonl")
            origin.started.prompts.update(work.keep_files(few))
        with pytest.raises(PromptError, match=message):
            stages.start(work, origin)


def test_no_weights_are_fetched(tmp_path):
    origin = earlier(str(tmp_path / "store"), LLAMA, config())
    with open_workspace(config(), origin.store_root, "start") as work:
        work.store.remove(origin.policy["model.safetensors"]["sha256"])
        model = work.without_weights(origin.started.policy)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
