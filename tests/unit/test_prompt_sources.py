"""Where prompts come from: lists and patterns of files, packed ones, subsets and splits of datasets."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pandas as pd
import pytest

from components.prompts import load
from support.prompt_files import lines, parquet, refusal, texts, write


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The working directory, with a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_by_list_and_pattern_in_the_order_given():
    write("data/b.jsonl", lines("b"))
    write("data/a.jsonl", lines("a1", "a2"))
    write("data/deep/c.jsonl", lines("c"))
    parquet("p.parquet", prompt=["p"])
    assert texts(["p.parquet", "data/b.jsonl"]) == ["p", "b"]
    assert texts("data/*.jsonl") == ["a1", "a2", "b"]
    assert texts(["data/**/*.jsonl", "p.parquet"]) == ["a1", "a2", "b", "c", "p"]
    assert texts("data/[b]*") == ["b"]
    assert texts(str(Path("data/?.jsonl").absolute())) == ["a1", "a2", "b"]
    write("data[1]/a.jsonl", lines("brackets"))
    assert texts("data[1]/a.jsonl") == ["brackets"]  # a file of just this name


def test_packed_files():
    write("a.jsonl.gz", lines("a"), packed=True)
    write("B.JSON.GZ", gzip.compress(b'{"prompt": "b1"}\n') + gzip.compress(b'{"prompt": "b2"}'))
    parquet("c.parquet", prompt=["c"])
    write("c.parquet.gz", Path("c.parquet").read_bytes(), packed=True)
    assert texts(["a.jsonl.gz", "B.JSON.GZ", "c.parquet.gz"]) == ["a", "b1", "b2", "c"]
    write("folder/train.jsonl.gz", lines("d"), packed=True)
    write("table/train.csv.gz", "prompt,answer\ne,1.50\n", packed=True)
    assert texts("folder") == ["d"]
    assert [(prompt.text, prompt.answer) for prompt in load("table", split="train")] == [("e", "1.50")]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("plain.jsonl.gz", "plain.jsonl.gz: is not a whole gzip file (Not a gzipped file"),
        ("cut.jsonl.gz", "cut.jsonl.gz: is not a whole gzip file (Compressed file ended before"),
        ("damaged.jsonl.gz", "damaged.jsonl.gz: is not a whole gzip file ("),
        ("folder", "train.jsonl.gz: is not a whole gzip file ("),
        ("hidden.jsonl", "hidden.jsonl: is packed with gzip. Unpack it, or let its name end in .gz."),
        ("notes.gz", "notes.gz: prompts are not read from this kind of file."),
        ("absent.jsonl.gz", "absent.jsonl.gz: there is no such file ("),
        ("absent*.jsonl", "absent*.jsonl: there is no such file (looked from "),
        (["good.jsonl", "./good.jsonl"], "good.jsonl: is named twice. Name it once."),
        (["good.jsonl", "go*.jsonl"], "good.jsonl: is named twice. Name it once."),
        (["good.jsonl", "more.txt"], "more.txt: prompts are not read from this kind of file."),
        (["good.jsonl", ""], "prompts: is empty. Name a path."),
        (["good.jsonl", "same.jsonl"], "same.jsonl, line 1: messages: the same as in good.jsonl, line 1. Remove one"),
        (
            ["good.jsonl", "bad.jsonl"],
            "good.jsonl, bad.jsonl: 1 of 3 lines cannot be used:\n  bad.jsonl, line 2: prompt:",
        ),
        (["good.jsonl", "bad.parquet"], "1 of 2 records cannot be used:\n  bad.parquet, row 1: prompt: is of type int"),
        (["good.jsonl", "other.parquet"], "other.parquet: has no column 'prompt' or 'messages'. Set prompts.column"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(source, reason):
    packed = gzip.compress(lines(*(str(i) for i in range(99))).encode())
    write("plain.jsonl.gz", lines("a"))
    write("cut.jsonl.gz", packed[:-9])
    write("damaged.jsonl.gz", packed[:30] + b"\xff" * 9 + packed[39:])
    write("folder/train.jsonl.gz", packed[:-9])
    write("hidden.jsonl", packed)
    write("notes.gz", packed)
    write("more.txt", "")
    write("good.jsonl", lines("a"))
    write("same.jsonl", lines("a"))
    write("bad.jsonl", lines("b") + '{"prompt": 3}\n')
    parquet("bad.parquet", prompt=[3])
    parquet("other.parquet", question=["a"])
    message = refusal(source)
    assert reason in message


@pytest.mark.parametrize("kind", ["file.jsonl", "file.parquet", "folder"])
def test_turns_under_prompt(kind):
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sky?"}
    records = [
        {"prompt": [system, user], "completion": [{"role": "assistant", "content": "Blue."}]},
        {"prompt": [{**user, "content": "Grass?"}], "completion": [{"role": "assistant", "content": "Green."}]},
    ]
    if kind == "file.parquet":
        pd.DataFrame(records).to_parquet(kind)
    else:
        name = kind if kind == "file.jsonl" else f"{kind}/train.jsonl"
        write(name, "".join(json.dumps(record) + "\n" for record in records))
    first, second = load(kind, split="train")
    assert first.messages == (system, user)
    assert first.metadata == {"completion": [{"role": "assistant", "content": "Blue."}]}
    assert second.text == "Grass?"
    assert repr(load(kind, split="train", column="prompt")) == repr([first, second])


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ([], "prompt: is empty. Write text or a list of turns {role, content}."),
        (["Sky?"], "prompt[0]: is not a mapping of `role` and `content`, both text."),
        ([{"role": "user", "content": " "}], "prompt: is blank."),
        ([{"role": "user", "content": [{"type": "text", "text": "Sky?"}]}], "prompt[0]: is not a mapping of"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "prompt: the last turn is by the assistant. End with a turn of the user; prompts.column: prompt leaves",
        ),
    ],
)
def test_turns_that_are_no_prompt(prompt, reason):
    write("p.jsonl", json.dumps({"prompt": prompt}))
    assert f"line 1: {reason}" in refusal("p.jsonl")


@pytest.fixture
def gsm8k():
    """A directory as openai/gsm8k has it on the hub: two subsets, each with two splits."""
    for subset in ("main", "socratic"):
        for split in ("train", "test"):
            questions = [f"{subset} {split} {i}" for i in range(3)]
            parquet(f"gsm8k/{subset}/{split}-00000-of-00001.parquet", question=questions, answer=["#### 1"] * 3)
    configs = "".join(
        f"- config_name: {subset}\n  data_files:\n  - {{split: train, path: {subset}/train-*}}\n"
        f"  - {{split: test, path: {subset}/test-*}}\n"
        for subset in ("main", "socratic")
    )
    write("gsm8k/README.md", f"---\nconfigs:\n{configs}---\n")
    return "gsm8k"


def test_a_subset_and_its_splits(gsm8k):
    for subset in ("main", "socratic"):
        for split in ("train", "test"):
            found = texts(gsm8k, subset=subset, split=split, column="question")
            assert found == [f"{subset} {split} {i}" for i in range(3)]
    assert texts(gsm8k, subset="main", split="train[:2]", column="question") == ["main train 0", "main train 1"]
    assert texts(gsm8k, subset="main", split="test+train", column="question")[0] == "main test 0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "gsm8k: has several subsets. Set prompts.subset to one of: main, socratic."),
        ({"subset": "mian"}, "gsm8k: has no subset 'mian'. Set prompts.subset to one of: main, socratic."),
        ({"subset": "main", "split": "dev"}, "gsm8k: split 'dev' of this dataset cannot be loaded (Unknown split"),
        ({"subset": "main", "split": "train["}, "gsm8k: split 'train[' of this dataset cannot be loaded ("),
    ],
)
def test_a_subset_or_split_that_is_not_there(gsm8k, options, message):
    assert refusal(gsm8k, **{"split": "train", **options}, column="question").startswith(message)


def test_a_subset_of_a_dataset_without_any():
    write("folder/train.jsonl", lines("a"))
    assert refusal("folder", subset="main") == (
        "folder: has no subset 'main', nor any other. Leave prompts.subset out."
    )


CARDS = {
    "no YAML": "---\nconfigs: [a\n---\n",
    "a text among configs": "---\nconfigs:\n- x\n---\n",
}


@pytest.mark.parametrize("card", CARDS)
def test_a_dataset_whose_readme_describes_none(card):
    write("folder/train.jsonl", lines("a"))
    write("folder/README.md", CARDS[card])
    assert refusal("folder").startswith(("folder/README.md: its first part", "folder: split 'train' of this dataset"))


def test_a_readme_that_is_no_yaml_is_named():
    write("folder/train.jsonl", lines("a"))
    write("folder/README.md", CARDS["no YAML"])
    message = refusal("folder")
    assert message.startswith("folder/README.md: its first part, between two lines `---`, does not describe a dataset")
    assert message.endswith("Correct it.")


def test_a_dataset_with_a_script():
    write("folder/folder.py", "import datasets\n")
    message = refusal("folder")
    assert message.startswith("folder: split 'train' of this dataset cannot be loaded (")
    assert "folder.py" in message


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("a.zip", b"junk", "File is not a zip file"),
        ("a.tar", b"junk", "truncated header"),
        ("a.jsonl.xz", b"junk", "Input format not supported"),
        ("a.jsonl.xz", lzma.compress(b"{}")[:-8], "ended before the end"),
        ("a.lance", b"junk", "No module named 'lance'"),
    ],
)
def test_a_dataset_in_a_damaged_archive_or_without_its_library(file, data, said):
    write(f"folder/{file}", data)
    message = refusal("folder")
    assert message.startswith("folder: split 'train' of this dataset cannot be loaded (")
    assert said in message


def test_the_folder_of_all_folders_is_no_dataset():
    assert refusal("/").startswith("/: split 'train' of this dataset cannot be loaded (")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"dataset_dict.json": '{"splits": 3}'}, "dataset_dict.json"),
        ({"state.json": "[]", "dataset_info.json": "3"}, "state.json"),
    ],
)
def test_a_saved_dataset_that_is_damaged_is_told_by_its_file(files, named):
    for name, text in files.items():
        write(f"saved/{name}", text)
    message = refusal("saved")
    assert message.startswith(f"saved/{named}: it and the files beside it do not describe a saved dataset (")
    assert message.endswith("Save it again with save_to_disk.")


def test_a_number_of_thousands_of_digits():
    write("a.jsonl", '{"prompt": "a", "metadata": {"n": ' + 5000 * "1" + "}}")
    assert "holds a number of thousands of digits. Write it as text, or shorter." in refusal("a.jsonl")
