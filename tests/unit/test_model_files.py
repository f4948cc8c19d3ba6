"""Which files beside a model are its own: weights under any name that the index lists, nothing else that lies there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModelForSequenceClassification

from components.config.errors import JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.judges import _models
from components.judges.reward_model import RewardModel
from components.policy import weight_files
from components.policy.model import copy_files, fetch, load

INDEX = "model.safetensors.index.json"
NAMES = {"model-{}-of-{}.safetensors", "model.safetensors-{}-of-{}.safetensors", "layers {} ({}).safetensors"}


@pytest.fixture
def folder(tmp_path, make_model, make_tokenizer):
    directory = tmp_path / "model"
    make_model().save_pretrained(directory)
    make_tokenizer("{% for m in messages %}{{ m['content'] }} {% endfor %}").save_pretrained(directory)
    return directory


def reshard(folder, model, pattern):
    """The weights in three shards or so, under names of another pattern."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    model.save_pretrained(folder, max_shard_size="10KB")
    index = json.loads((folder / INDEX).read_text())
    old = sorted(set(index["weight_map"].values()))
    new = {name: pattern.format(f"{i + 1:05}", f"{len(old):05}") for i, name in enumerate(old)}
    assert len(new) > 1
    for before, after in new.items():
        (folder / before).rename(folder / after)
    index["weight_map"] = {weight: new[name] for weight, name in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))
    return set(new.values())


def names(directory):
    return {str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()}


@pytest.mark.parametrize("pattern", sorted(NAMES))
def test_weights_have_the_names_that_the_index_lists(folder, tmp_path, make_model, pattern):
    model = make_model()
    shards = reshard(folder, model, pattern)
    (folder / "consolidated.safetensors").write_bytes(b"the same again in another format")
    copy = copy_files(fetch(PolicyConfig(model=str(folder))), tmp_path / "copy")
    assert {name for name in names(copy) if name.endswith(".safetensors")} == shards
    loaded = load(copy, PolicyConfig()).model
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), model.parameters(), strict=True))


STRANGERS = (
    *("service-account.json", ".secrets.json", "credentials.json", "trainer_state.json", "all_results.json"),
    *("requirements.txt", "token.txt", "notes.txt", ".env", "training_args.bin", "wind.json", ".hidden.model"),
    *("other.jinja", "additional_chat_templates/notes.txt"),
)


def test_nothing_else_is_taken(folder, tmp_path):
    own = names(folder)
    (folder / "additional_chat_templates").mkdir()
    for stranger in STRANGERS:
        (folder / stranger).write_text("{}")
    assert names(copy_files(folder, tmp_path / "copy", code=True)) == own


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "model.safetensors", "spiece.model"])
def test_a_link_out_of_the_directory_is_refused(folder, tmp_path, name):
    (folder / name).unlink(missing_ok=True)
    (tmp_path / "secret").write_text("of the machine")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(PolicyError, match=rf"{name} is a link to .*secret, outside the model's directory"):
        fetch(PolicyConfig(model=str(folder)))


def test_links_within_the_directory_and_to_it_are_followed(folder, tmp_path):
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "w")
    (folder / "model.safetensors").symlink_to("weights/w")
    (tmp_path / "link").symlink_to(folder)
    copy = copy_files(fetch(PolicyConfig(model=str(tmp_path / "link"))), tmp_path / "copy")
    assert not (copy / "model.safetensors").is_symlink()
    assert (copy / "model.safetensors").read_bytes() == (folder / "weights" / "w").read_bytes()


def test_the_hubs_cache_links_to_its_blobs(folder, tmp_path):
    cache = tmp_path / "models--some--model"
    snapshot = cache / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for i, name in enumerate(sorted(names(folder))):
        shutil.copyfile(folder / name, cache / "blobs" / str(i))
        (snapshot / name).symlink_to(f"../../blobs/{i}")
    assert names(copy_files(fetch(PolicyConfig(model=str(snapshot))), tmp_path / "copy")) == names(folder)


@pytest.mark.parametrize(
    "name",
    ["/etc/weights.safetensors", "../weights.safetensors", "a/b.safetensors", "a\\b.safetensors", ".w.safetensors"],
)
@pytest.mark.parametrize("key", ["policy", "judge"])
def test_an_index_that_points_elsewhere_is_refused(folder, tmp_path, make_model, name, key):
    reshard(folder, make_model(), "model-{}-of-{}.safetensors")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(PolicyError, match=rf"{key}\.model: .* which is not the name of a safetensors file beside it"):
        fetch(PolicyConfig(model=str(folder)), key)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": ["b"]}}'])
def test_an_index_that_is_none(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(content)
    with pytest.raises(PolicyError, match="is not an index of weights"):
        fetch(PolicyConfig(model=str(folder)))


def test_a_shard_that_is_missing(folder, make_model):
    shards = reshard(folder, make_model(), "model.safetensors-{}-of-{}.safetensors")
    gone = sorted(shards)[-1]
    (folder / gone).unlink()
    with pytest.raises(PolicyError, match=f"lacks {gone}, which its {INDEX} lists"):
        fetch(PolicyConfig(model=str(folder)))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """`hub(folder)`: the hub has the files of a folder, and gives those that match the patterns."""

    def serve(folder):
        def download(name, *, revision, allow_patterns):
            target = tmp_path / "cache" / "0a1b"
            for file in filter_repo_objects(sorted(names(folder)), allow_patterns=allow_patterns):
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, target / file)
            return str(target)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return tmp_path / "cache" / "0a1b"

    return serve


@pytest.mark.parametrize("key", ["policy", "judge"])
def test_what_is_downloaded(folder, make_model, hub, key):
    shards = reshard(folder, make_model(), "layers {} ({}).safetensors")
    expected = names(folder)
    for stranger in (".secrets.json", "service-account.json", "consolidated.safetensors", "pytorch_model.bin"):
        (folder / stranger).write_text("{}")
    cache = hub(folder)
    assert fetch(PolicyConfig(model="some/model"), key) == cache
    assert names(cache) == expected
    assert shards < expected
    assert load(cache, PolicyConfig()).model.config.hidden_size == 16


def test_a_judges_weights_have_any_names(folder, make_model, tmp_path):
    config = make_model().config
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config)
    reshard(folder, model, "model.safetensors-{}-of-{}.safetensors")
    RewardModel(model=str(folder)).check()
    (folder / weight_files.weight_names(folder)[0]).unlink()
    _models.unload()
    with pytest.raises(JudgeError, match=r"which its model\.safetensors\.index\.json lists"):
        RewardModel(model=str(folder)).check()
    _models.unload()
    assert Path(folder).is_dir()
