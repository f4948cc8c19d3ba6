"""A policy's directory: fetched, damaged, copied and saved, in one file of weights or several."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.model import copy_files, fetch, load, save
from support.models.policies import CHAT, CHAT_IDS, EOS, assert_same_weights, prompt, weights
from support.models.words import edit


@pytest.fixture
def folder(tmp_path, make_model, make_tokenizer):
    """A Llama's directory with a chat template."""
    directory = tmp_path / "model"
    make_model().save_pretrained(directory)
    make_tokenizer(CHAT).save_pretrained(directory)
    return directory


def test_fetch_takes_a_directory(folder, monkeypatch):
    assert fetch(PolicyConfig(model=str(folder))) == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert fetch(PolicyConfig(model="~/model")) == folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [(name, "Repo id must") for name in ("/no/such/directory", "./none", "~/none", "a/b/c", "no such")]
    + [(name, "outgoing traffic has been disabled") for name in ("nobody/none", "none")],
)
def test_fetch_refuses_what_is_not_there(name, reason, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PolicyError, match=rf"policy\.model: .* is neither a directory here nor a model.*{reason}"):
        fetch(PolicyConfig(model=name))


def test_fetch_says_so_when_the_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(PolicyError, match=r"refused\)\. Check the path or id, policy\.revision, the network"):
        fetch(PolicyConfig(model="nobody/none", revision="main"))


def test_fetch_says_so_when_the_proxy_cannot_be_reached(monkeypatch):
    from huggingface_hub import close_session

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    close_session()  # the next one reads the environment
    with pytest.raises(PolicyError, match="Check the path or id"):
        fetch(PolicyConfig(model="nobody/none"))
    close_session()


def test_fetch_refuses_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(PolicyError, match=r"no safetensors weights.*pickled weights \(\.bin\) are not loaded"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_another_tools_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "optimizer.safetensors")
    with pytest.raises(PolicyError, match="no safetensors weights"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_an_adapter(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(PolicyError, match=r"^policy\.model: .* holds an adapter\. Merge it into its model"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_a_directory_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(PolicyError, match=r"no config\.json"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_weights_in_two_forms(folder, make_model):
    make_model(seed=1).save_pretrained(folder / "sharded", max_shard_size="10KB")
    for file in (folder / "sharded").glob("model*"):
        file.rename(folder / file.name)
    with pytest.raises(PolicyError, match=r"holds weights twice.*Remove the stale ones"):
        fetch(PolicyConfig(model=str(folder)))


def test_missing_weights_are_not_made_up(folder, make_model):
    make_model().base_model.save_pretrained(folder)  # no head
    with pytest.raises(PolicyError, match=r"lacks 1 weights of a LlamaForCausalLM, lm_head\.weight among them"):
        load(folder, PolicyConfig())


def test_tied_weights_are_not_missing(folder, make_model):
    make_model("qwen2").save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert load(folder, PolicyConfig()).model.config.tie_word_embeddings


def damage(folder, how):
    file = folder / "model.safetensors"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "other shapes":
        edit(folder / "config.json", hidden_size=32)
    elif how == "no shard":
        (folder / "model.safetensors").unlink()
        edit_index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(edit_index))
    elif how == "config":
        (folder / "config.json").write_text("{")
    elif how == "model type":
        edit(folder / "config.json", model_type="unheard-of")
    elif how == "tokenizer":
        (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("how", ["truncated", "other shapes", "no shard", "config", "model type", "tokenizer"])
def test_damaged_directories(folder, how):
    damage(folder, how)
    with pytest.raises(PolicyError, match=r"policy\.model: .* cannot be loaded"):
        load(folder, PolicyConfig(model="mine"))


def test_copy_leaves_training_behind(folder, tmp_path):
    strangers = ["optimizer.pt", "optimizer.safetensors", "scheduler.pt", "trainer_state.json", "eval_results.json"]
    for name in (*strangers, "pytorch_model.bin", "modeling.py"):
        (folder / name).write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ bos_token }}")
    names = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
    }

    def copied(name, **options):
        target = copy_files(folder, tmp_path / name, **options)
        files = [file for file in target.rglob("*") if file.is_file()]
        assert all(file.read_bytes() == (folder / file.relative_to(target)).read_bytes() for file in files)
        return {str(file.relative_to(target)) for file in files}

    assert copied("plain") == names | {"model.safetensors"}
    assert copied("code", code=True) == names | {"model.safetensors", "modeling.py"}
    assert copied("weightless", weights=False) == names


def test_save_and_load_is_a_round_trip(folder, tmp_path):
    edit(folder / "generation_config.json", eos_token_id=[9, 11])
    (folder / "vocab.txt").write_bytes(b"any\r\nbytes \xff")
    policy = load(folder, PolicyConfig())
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1e-3)
    target = save(policy, tmp_path / "saved")
    again = load(target, PolicyConfig())
    assert_same_weights(weights(again), weights(policy))
    assert again.eos_ids == policy.eos_ids == (EOS, 9, 11)
    assert again.encode(prompt()) == CHAT_IDS
    unchanged = [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "vocab.txt",
        "generation_config.json",
    ]
    for name in unchanged:
        assert (target / name).read_bytes() == (folder / name).read_bytes()
    assert_same_weights(weights(load(save(again, tmp_path / "twice"), PolicyConfig())), weights(policy))


def test_save_survives_contradictory_generation_defaults(folder, tmp_path):
    """A temperature without do_sample, as many published models have it, is refused by `save_pretrained`."""
    edit(folder / "generation_config.json", temperature=0.6, top_p=0.9)
    target = save(load(folder, PolicyConfig()), tmp_path / "saved")
    assert (target / "generation_config.json").read_bytes() == (folder / "generation_config.json").read_bytes()


def shard(policy, directory, size="10KB"):
    policy.model.save_pretrained(directory, max_shard_size=size)
    assert len(list(directory.glob("model-*.safetensors"))) > 1


def test_shards_load_and_copy(folder, tmp_path):
    policy = load(folder, PolicyConfig())
    (folder / "model.safetensors").unlink()
    shard(policy, folder)
    target = copy_files(fetch(PolicyConfig(model=str(folder))), tmp_path / "copy")
    assert_same_weights(weights(load(target, PolicyConfig())), weights(policy))


def test_save_over_other_shards_leaves_no_stale_weights(folder, tmp_path):
    policy = load(folder, PolicyConfig())
    target = copy_files(folder, tmp_path / "target")
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
    (target / "model.safetensors").unlink()
    shard(policy, target)
    save(policy, target)
    assert [file.name for file in target.glob("model*")] == ["model.safetensors"]
    assert_same_weights(weights(load(fetch(PolicyConfig(model=str(target))), PolicyConfig())), weights(policy))


def test_save_onto_its_own_source_is_refused_before_anything_is_lost(folder):
    policy = load(folder, PolicyConfig())
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(shutil.SameFileError):
        save(policy, folder)
    assert (folder / "model.safetensors").read_bytes() == before
