"""What a config says of its prompts: which datasets, subsets, splits and columns are read."""

from __future__ import annotations

import pytest

from components.config.errors import ConfigError, PromptError
from components.config.strict_yaml import load_yaml
from components.prompts import Source, configured
from components.run_config import checked, parse


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The working directory, with a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(text: str):
    base = {"policy": {"model": "m"}, "judge": {"name": "verifier", "function": "a:b"}}
    return checked({**base, "prompts": load_yaml(text)}).prompts


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("train: a.jsonl", [Source(("a.jsonl",))]),
        ("{train: [a.jsonl, b.jsonl], evaluation: c*.jsonl}", [Source(("a.jsonl", "b.jsonl")), Source(("c*.jsonl",))]),
        (
            "{train: o/g, subset: main, evaluation_split: test}",
            [Source(("o/g",), "train", "main"), Source(("o/g",), "test", "main", "prompts.evaluation_split")],
        ),
        (
            "{train: o/g, split: a, evaluation: o/h, evaluation_split: b}",
            [Source(("o/g",), "a"), Source(("o/h",), "b", None, "prompts.evaluation_split")],
        ),
        ("{train: o/g, split: a, evaluation: o/h}", [Source(("o/g",), "a"), Source(("o/h",), "a")]),
        (
            "{train: o/g, subset: main, evaluation: own.jsonl}",
            [Source(("o/g",), subset="main"), Source(("own.jsonl",), subset="main")],
        ),
    ],
)
def test_what_a_config_names(text, sources):
    assert configured(settings(text)) == sources


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{train: a.jsonl, subset: main}",
            "prompts.subset: 'main' is for a Hugging Face dataset, and a.jsonl has no subset.",
        ),
        ("{train: a.jsonl, split: nosuch}", "prompts.split: 'nosuch' is for a Hugging Face dataset, and a.jsonl has"),
        ("{train: [a.jsonl, b.parquet], evaluation: c.jsonl, split: dev}", "prompts.split: 'dev' is for a Hugging"),
        ("{train: saved, split: dev}", "prompts.split: 'dev' is for a Hugging Face dataset, and saved has no split."),
        (
            "{train: a.jsonl.gz, evaluation_split: test}",
            "prompts.evaluation_split: 'test' is for a Hugging Face dataset",
        ),
        ("{train: o/g, evaluation: [a.jsonl], evaluation_split: test}", "prompts.evaluation_split: 'test' is for a"),
        (
            "{train: saved, subset: main}",
            "prompts.subset: 'main' is for a Hugging Face dataset, and saved has no subset.",
        ),
        (
            "{train: saved, evaluation_split: test}",
            "prompts.evaluation_split: 'test' is for a Hugging Face dataset, and",
        ),
    ],
)
def test_a_setting_of_datasets_beside_files(text, message):
    import datasets

    datasets.Dataset.from_list([{"prompt": "a"}]).save_to_disk("saved")
    with pytest.raises(PromptError) as caught:
        configured(settings(text))
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("Leave it out.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: []", "prompts.train: [] cannot be used. Write a file's or dataset's name, or a list of names."),
        ("train: 3", "prompts.train: 3 cannot be used. Write a file's or dataset's name, or a list of names."),
        ("train: [a.jsonl, 3]", "prompts.train: ['a.jsonl', 3] cannot be used. Write a file's or dataset's name"),
        ("train: [a.jsonl, '']", "prompts.train: one of the names is empty. Remove it."),
        ("{train: a, evaluation: {a: b}}", "prompts.evaluation: {'a': 'b'} cannot be used. Write a file's"),
        ("{train: a, subset: ''}", "prompts.subset: '' cannot be used."),
        ("{train: a, subset: [main]}", "prompts.subset: ['main'] cannot be used."),
        ("{train: a, split: ''}", "prompts.split: '' cannot be used."),
        ("{train: a, evaluation_split: train}", "prompts.evaluation_split: 'train' is also prompts.split, with the"),
        ("{train: a, split: b, evaluation_split: b}", "prompts.evaluation_split: 'b' is also prompts.split"),
        ("{train: a, leave_out: b}", "prompts.leave_out: 'b' cannot be used."),
        ("{train: a, column: b, leave_out: [c, b]}", "prompts.leave_out: 'b' is also prompts.column. Remove one of"),
        ("{train: a, subsets: b}", "prompts.subsets: unknown key. Did you mean 'subset'?"),
    ],
)
def test_settings_that_cannot_be(text, message):
    with pytest.raises(ConfigError) as caught:
        settings(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["subset: a", "evaluation_split: a", "leave_out: [a]", "column: a"])
def test_the_demo_makes_its_own_prompts(setting):
    key = setting.partition(":")[0]
    with pytest.raises(ConfigError, match=rf"^prompts\.{key}: stands beside a `demo` section, which makes its own"):
        parse(f"{{demo: {{}}, prompts: {{{setting}}}}}")
