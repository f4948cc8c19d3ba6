"""Where prompts are loaded from: Parquet, directories of datasets, names of the hub; and what is saved."""

from __future__ import annotations

import datetime
import json

import pandas as pd
import pytest

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import load, refuse_overlap, save, split_held_out
from support.prompt_files import refusal, write_lines


@pytest.mark.parametrize(
    ("source", "reason", "remedy"),
    [
        ("absent.jsonl", "there is no such file (", "Correct the path."),
        ("absent.parquet", "there is no such file (", "Correct the path."),
        (
            "absent.csv",
            "prompts are not read from this kind of file",
            "Use a .jsonl, .json (one object per line)",
        ),
        ("notes", "prompts are not read from this kind of file", "Use a .jsonl"),
        ("./absent/prompts", "there is no such file or directory", "or a Hugging Face dataset"),
        ("empty.jsonl", "holds no prompts", "with at least one record."),
        ("blank.jsonl", "holds no prompts", "with at least one record."),
        ("text.parquet", "is not a readable Parquet file (", "Write it again."),
        ("folder", "split 'train' of this dataset cannot be loaded (", "Correct its name or prompts.split"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(tmp_path, monkeypatch, source, reason, remedy):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path, '{"prompt": "a"}', name="notes")
    write_lines(tmp_path, '{"prompt": "a"}', name="text.parquet")
    write_lines(tmp_path, " ", "", name="blank.jsonl")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    message = refusal(source)
    assert message.startswith(f"{source}: ")
    assert reason in message
    assert remedy in message


def test_parquet(tmp_path):
    path = tmp_path / "prompts.parquet"
    turns = [{"role": "user", "content": "b", "name": None}]
    rows = {
        "prompt": ["a", None],
        "messages": [None, turns],
        "answer": ["1", None],
        "level": pd.array([3, None], dtype="Int64"),
        "made": [datetime.date(2025, 1, 31), None],
    }
    pd.DataFrame(rows).to_parquet(path)
    first, second = load(str(path), split="train")
    assert (first.text, first.answer) == ("a", "1")
    assert first.metadata == {"level": 3, "made": "2025-01-31"}
    assert (second.messages, second.answer, second.metadata) == (
        ({"role": "user", "content": "b"},),
        None,
        {},
    )

    # pandas writes a missing float as null, which is no answer rather than a bad one
    pd.DataFrame({"prompt": ["a", "b"], "answer": [1.5, float("nan")]}).to_parquet(path)
    assert [prompt.answer for prompt in load(str(path), split="train")] == ["1.5", None]
    pd.DataFrame({"prompt": ["a", " "]}).to_parquet(path)
    assert "1 of 2 rows cannot be used:\n  row 2: prompt: is blank" in refusal(str(path))


def test_dataset_directories(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    parts = {name: datasets.Dataset.from_list([{"prompt": name, "n": 1}]) for name in ("train", "test")}
    parts["test"].save_to_disk(tmp_path / "one")
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    (tmp_path / "files").mkdir()
    for name in parts:
        write_lines(tmp_path, json.dumps({"prompt": name, "n": 1}), name=f"files/{name}.jsonl")

    for directory in ("one", "both", "files"):
        [prompt] = load(str(tmp_path / directory), split="test")
        assert (prompt.text, prompt.metadata) == ("test", {"n": 1})
    with pytest.raises(PromptError, match=r"has no split 'dev'\. Set prompts.split to one of: train, test\."):
        load(str(tmp_path / "both"), split="dev")
    with pytest.raises(PromptError, match=r"split 'dev' of this dataset cannot be loaded .*'train', 'test'"):
        load(str(tmp_path / "files"), split="dev")


def test_a_dataset_name_that_cannot_be_reached_is_refused(monkeypatch):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(PromptError, match=r"^no-such/set: split 'train' .* also needs the network"):
        load("no-such/set", split="train")


def test_what_is_saved_loads_again(tmp_path):
    saved = [
        Prompt("a", ({"role": "user", "content": "Grüße\n\u2028"},), "4", {"level": 1, "tags": ["x"]}),
        Prompt("b", ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})),
    ]
    save(saved, tmp_path / "out.jsonl")
    assert load(str(tmp_path / "out.jsonl"), split="train") == saved
    dated = Prompt("c", ({"role": "user", "content": "c"},), None, {"made": datetime.date(2025, 1, 31)})
    save([dated], tmp_path / "out.jsonl")
    assert load(str(tmp_path / "out.jsonl"), split="train")[0].metadata == {"made": "2025-01-31"}


@pytest.mark.thorough
def test_sixty_thousand_prompts(tmp_path):
    source = write_lines(tmp_path, *(json.dumps({"prompt": f"question {i}", "n": i}) for i in range(60_000)))
    read = load(source, split="train")
    train, evaluation = split_held_out(read, 256, seed=0)
    refuse_overlap(train, evaluation)
    assert (len(train), len(evaluation)) == (59_744, 256)
    assert [prompt.metadata["n"] for prompt in read] == list(range(60_000))
