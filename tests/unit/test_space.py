"""The disk that a run needs, by hand, and what is said where there is less."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from components.config.errors import ConfigError, StoreError
from components.config.sections import PolicyConfig
from components.plan import space
from components.plan.space import Space
from components.run_config import RunConfig, parse
from components.store import open_store

Usage = namedtuple("Usage", "total used free")
BASE = """
policy: {model: base, prompt_format: '{prompt}'}
prompts: {train: a.jsonl}
judge: {name: verifier, function: 'a:b'}
"""


def config(text: str = "") -> RunConfig:
    return RunConfig.model_validate(parse(BASE + text))


def test_a_run_by_hand() -> None:
    """A policy of 10 bytes, a state of 20, a base of 7; of three iterations, five of each at once."""
    needed = Space(base=7, policy=10, state=20)
    assert needed.stored(3) == 7 + 5 * 30
    assert needed.scratch(remote=False) == 60
    assert needed.scratch(remote=True) == 60 + 37
    assert Space(base=100, policy=10, state=20).scratch(remote=False) == 100


@pytest.mark.parametrize(
    ("text", "per_weight"),
    [
        ("", 8),
        ("training: {optimizer: rmsprop}", 4),
        ("algorithm: {name: jbond}", 12),
    ],
)
def test_all_weights(text: str, per_weight: int, tmp_path: Path, make_model, make_tokenizer) -> None:
    from components.policy import model as policies

    model = make_model()
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    base = policies.load(tmp_path, PolicyConfig(prompt_format="{prompt}"))
    files = sum(path.stat().st_size for path in tmp_path.iterdir())
    weights = model.num_parameters()
    assert space.of_base(config(text), base, tmp_path) == Space(files, 4 * weights, per_weight * weights)


def test_an_adapter(tmp_path: Path, make_model, make_tokenizer) -> None:
    """Rank 2 on two layers' queries, 16 by 16: two matrices of 2 x 16 each. The model itself stays as it was."""
    from components.policy import model as policies

    make_model().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    base = policies.load(tmp_path, PolicyConfig(prompt_format="{prompt}"))
    text = "training: {lora: {rank: 2, target_modules: [q_proj]}}"
    found = space.of_base(config(text), base, tmp_path)
    assert (found.policy, found.state) == (4 * 128, 8 * 128)
    assert not any("lora" in name for name, _ in base.model.named_parameters())


def test_of_another_runs_files() -> None:
    shared, own = {"sha256": "0" * 64, "size": 100}, {"sha256": "1" * 64, "size": 30}
    found = space.of_origin({"a": shared}, {"a": shared, "b": own}, {"c": {"sha256": "2" * 64, "size": 7}})
    assert found == Space(100, 30, 7)


@pytest.fixture
def store(tmp_path: Path):
    store = open_store(str(tmp_path / "store"))
    store.check()
    return store


def test_a_small_tmpdir(store, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9e9, 0, 5.9e9))
    with pytest.raises(StoreError, match=r"has 5\.9 GB left, and training needs about 6\.0 GB there.*TMPDIR"):
        space.check(config(), store, Space(0, 1_000_000_000, 2_000_000_000), in_pod=False)


def test_store_and_tmpdir_on_one_disk_add_up(store, monkeypatch) -> None:
    """Three iterations: 5 x 3 GB in the store and 6 GB beside it."""
    needed = Space(0, 1_000_000_000, 2_000_000_000)
    monkeypatch.setattr("tempfile.gettempdir", lambda: store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(30e9, 0, 20.9e9))
    with pytest.raises(StoreError, match=r"has 20\.9 GB left; the run needs about 21\.0 GB"):
        space.check(config(), store, needed, in_pod=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(30e9, 0, 21e9))
    space.check(config(), store, needed, in_pod=False)


def test_runs_from_one_base_share_it(store, monkeypatch) -> None:
    """Three iterations of 6, 6 and 3 GB and a base of 2: 2 + 3 x 15, two saved states, and 12 GB in TMPDIR."""
    small, large = (Space(2_000_000_000, policy, 2 * policy) for policy in (1_000_000_000, 2_000_000_000))
    monkeypatch.setattr("tempfile.gettempdir", lambda: store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(90e9, 0, 70.9e9))
    with pytest.raises(StoreError, match=r"has 70\.9 GB left; the run needs about 71\.0 GB"):
        space.check(config(), store, large, small, large, in_pod=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(90e9, 0, 71e9))
    space.check(config(), store, large, small, large, in_pod=False)


@pytest.mark.parametrize(("together", "scratch"), [(1, 12), (2, 24), (3, 30), (16, 30)])
def test_runs_side_by_side_have_a_scratch_folder_each(store, monkeypatch, together, scratch) -> None:
    """Of 6, 6 and 3 GB an iteration: twice that in TMPDIR, and as much of saved states in the store beside 47."""
    small, large = (Space(2_000_000_000, policy, 2 * policy) for policy in (1_000_000_000, 2_000_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(90e9, 0, scratch * 1e9 - 1e8))
    several = rf" of {min(together, 3)} runs at once" if together > 1 else ""
    with pytest.raises(StoreError, match=rf"and training{several} needs about {scratch}\.0 GB there"):
        space.check(config(), store, large, small, large, together=together, in_pod=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: store.root)
    whole = 2 + 3 * 15 + 2 * scratch
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(90e9, 0, whole * 1e9 - 1e8))
    with pytest.raises(StoreError, match=rf"the run needs about {whole}\.0 GB"):
        space.check(config(), store, large, small, large, together=together, in_pod=False)


@pytest.mark.parametrize(("cluster", "fits"), [("{}", False), ("{steps: {train: {disk: 60000}}}", True)])
def test_pods_have_a_disk_each(store, cluster: str, fits: bool, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e15, 0, 1e15))
    needed = Space(0, 10_000_000_000, 20_000_000_000)
    if fits:
        space.check(config(f"cluster: {cluster}"), store, needed, in_pod=True)
        return
    with pytest.raises(ConfigError, match=r"^cluster\.steps\.train\.disk: 10240 MB are too few, .* 60000 MB"):
        space.check(config(f"cluster: {cluster}"), store, needed, in_pod=True)
