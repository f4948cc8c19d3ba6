"""Where prompts come from: lists and patterns of files, packed ones, subsets and splits of datasets, and bad ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from components.config import checked, parse
from components.errors import ConfigError, PromptError
from components.prompts import Source, configured, load
from components.schema import load_yaml


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The working directory, with a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, data: bytes | str, *, packed: bool = False) -> str:
    data = data.encode() if isinstance(data, str) else data
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(gzip.compress(data) if packed else data)
    return name


def lines(*texts: str) -> str:
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts)


def parquet(name: str, **columns: object) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_parquet(name)
    return name


def texts(source, *, split="train", **options) -> list[str]:
    return [prompt.text for prompt in load(source, split=split, **options)]


def refusal(source, *, split="train", **options) -> str:
    with pytest.raises(PromptError) as caught:
        load(source, split=split, **options)
    return str(caught.value)


# Lists, patterns and packed files


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
        (["good.jsonl", ""], ": there is no such file or directory."),
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


# Turns under `prompt`, as TRL has them


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


# Whole numbers beside missing ones


def answers(source, **options) -> list[tuple[str | None, dict]]:
    return [(prompt.answer, prompt.metadata) for prompt in load(source, split="train", **options)]


def test_whole_numbers_beside_missing_ones_stay_whole():
    """Pandas writes 42 and null as 42.0 and null."""
    columns = {
        "prompt": ["a", "b", "c"],
        "answer": [42, None, -7],
        "level": [None, 3, None],
        "share": [0.5, None, 1.0],
        "score": [1.0, 2.0, 3.0],
        "large": [1e300, None, None],
    }
    parquet("gaps.parquet", **columns)
    assert pyarrow.parquet.read_schema("gaps.parquet").field("answer").type == pa.float64()
    expected = [
        ("42", {"share": 0.5, "score": 1.0, "large": 1e300}),
        (None, {"level": 3, "score": 2.0}),
        ("-7", {"share": 1.0, "score": 3.0}),
    ]
    assert repr(answers("gaps.parquet")) == repr(expected)
    parquet("folder/train.parquet", **columns)
    assert repr(answers("folder")) == repr(expected)

    import datasets

    datasets.Dataset.from_parquet("gaps.parquet").save_to_disk("saved")
    assert repr(answers("saved")) == repr(expected)


def test_numbers_of_several_files_are_of_one_kind():
    parquet("a.parquet", prompt=["a", "b"], answer=[42, None], n=[1.0, None])
    parquet("b.parquet", prompt=["c"], answer=[43], n=[2.0])
    parquet("c.parquet", prompt=["d"], answer=[None], n=[2.5])
    assert repr(answers(["a.parquet", "b.parquet"])) == repr([("42", {"n": 1}), (None, {}), ("43", {"n": 2})])
    assert repr(answers(["b.parquet", "c.parquet", "a.parquet"])) == repr(
        [("43", {"n": 2.0}), (None, {"n": 2.5}), ("42", {"n": 1.0}), (None, {})]
    )


def test_large_whole_numbers_keep_their_digits():
    table = {"prompt": ["a", "b"], "answer": pa.array([2**60 + 1, None]), "id": pa.array([None, 2**63 - 1])}
    pyarrow.parquet.write_table(pa.table(table), "large.parquet")
    first, second = load("large.parquet", split="train")
    assert (first.answer, second.answer, second.id) == ("1152921504606846977", None, "9223372036854775807")
    parquet("ids.parquet", prompt=["a", "b"], id=[1e17, None])  # a double that has lost digits is no id
    assert "row 1: id: 1e+17 cannot be used." in refusal("ids.parquet")


def test_a_csv_file_of_a_dataset_keeps_what_is_written():
    write(
        "folder/train.csv",
        "id,prompt,answer,level,share,code,digits,flag,note\n"
        '07,a,1.50,1,0.5,007,12345678901234567890,True,NA\n,"b, c",,,,,,,\n8,d,042,3,2,010,1,False,None\n',
    )
    first, second, third = load("folder", split="train")
    assert (first.id, first.answer) == ("07", "1.50")
    expected = {"level": 1, "share": 0.5, "code": "007", "digits": "12345678901234567890", "flag": True, "note": "NA"}
    assert repr(first.metadata) == repr(expected)
    assert (second.text, second.answer, second.metadata) == ("b, c", None, {})
    assert third.answer == "042"
    assert (third.metadata["level"], third.metadata["note"]) == (3, "None")


def test_prompts_of_a_csv_file_are_text():
    write("folder/train.csv", "prompt,question,n\n1,2.50,3\n4,,\n5,6,7\n")
    assert texts("folder") == ["1", "4", "5"]
    assert "row 2: has no `question`" in refusal("folder", column="question")
    write("folder/train.csv", "prompt,question,n\n1,2.50,3\n4,1e3,\n5,6,7\n")
    first, second, _ = load("folder", split="train", column="question")
    assert (first.text, second.text) == ("2.50", "1e3")
    assert repr((first.metadata, second.metadata)) == "({'prompt': '1', 'n': 3}, {'prompt': '4'})"
    assert texts("folder", leave_out=["n", "question"]) == ["1", "4", "5"]


def test_csv_as_the_dataset_describes_it():
    write("folder/data.csv", "prompt;answer\na;42\nb;\n")
    write("folder/README.md", "---\nconfigs: [{config_name: default, data_files: data.csv, sep: ';'}]\n---\n")
    assert answers("folder") == [("42", {}), (None, {})]


def test_types_that_a_dataset_declares():
    """Also after `datasets` has the directory in its cache."""
    write("folder/train.jsonl", '{"prompt": "a", "n": 1, "day": "2025-01-31"}\n')
    assert repr(answers("folder")) == repr([(None, {"n": 1, "day": "2025-01-31"})])
    assert texts("folder", split="train[:1]") == ["a"]  # `datasets` reads parts of a split
    assert repr(answers("folder")) == repr([(None, {"n": 1, "day": "2025-01-31"})])
    features = "".join(f"  - {{name: {name}, dtype: {dtype}}}\n" for name, dtype in DECLARED.items())
    write("folder/README.md", f"---\ndataset_info:\n  features:\n{features}---\n")
    assert repr(answers("folder")[0][1]["n"]) == "1.0"


DECLARED = {"prompt": "string", "n": "float64", "day": "string"}


# Names given twice, bytes that are no text, rows that differ


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"prompt": "a", "answer": 1, "answer": 2}', "answer"),
        ('{"prompt": "a", "prompt": "a"}', "prompt"),
        ('{"prompt": "a", "\\u0070rompt": "b"}', "prompt"),
        ('{"prompt": "a", "metadata": {"k": 1, "k": 1}}', "k"),
        ('{"prompt": [{"role": "user", "role": "system", "content": "a"}]}', "role"),
        ('{"prompt": "a", "": 1, "": null}', ""),
    ],
)
def test_a_key_given_twice_is_refused(line, key):
    for source in (write("p.jsonl", f"{lines('good')}{line}\n"), write("folder/train.jsonl", f"{lines('good')}{line}")):
        place = "line 2" if source == "p.jsonl" else f"{Path(source).absolute()}, line 2"
        message = refusal(source if source == "p.jsonl" else "folder")
        assert message.endswith(f"  {place}: {key}: stands there twice. Keep one of the two.")


def test_a_column_given_twice_is_refused():
    table = pa.table({"prompt": ["a"], "x": [1], "y": [2]}).rename_columns(["prompt", "answer", "answer"])
    pyarrow.parquet.write_table(table, "p.parquet")
    twice = "has the column 'answer' twice. Rename or remove one of the two."
    assert refusal("p.parquet") == f"p.parquet: {twice}"
    write("good.jsonl", lines("good"))
    assert refusal(["good.jsonl", "p.parquet"]) == f"p.parquet: {twice}"
    write("folder/train.csv", "prompt,answer,answer\na,1,2\n")
    assert refusal("folder") == f"{Path('folder/train.csv').absolute()}: {twice}"
    inner = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    pyarrow.parquet.write_table(pa.table({"prompt": ["a"], "s": inner}), "deep.parquet")
    assert refusal("deep.parquet").startswith("deep.parquet: has the column 's.x' twice.")


def not_text(*values: bytes) -> pa.Array:
    """A column of text with bytes that are none, as other programs write it."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_bytes_that_are_no_text_are_found():
    write("p.jsonl", lines("good") + '{"prompt": "a", "note": "Grüße"}\n')
    Path("latin.jsonl").write_bytes(Path("p.jsonl").read_text().encode("latin-1"))
    message = refusal(["p.jsonl", "latin.jsonl"], allow_duplicates=True)
    assert "  latin.jsonl, line 2: is not UTF-8 JSON ('utf-8' codec can't decode byte 0xfc in position" in message
    assert message.endswith("), in `note`. Save the file as UTF-8.")

    pyarrow.parquet.write_table(pa.table({"prompt": ["a", "b"], "note": not_text(b"x", b"Gr\xfc")}), "p.parquet")
    message = refusal("p.parquet")
    assert message.startswith("p.parquet: row 2: note: is not UTF-8 text ('utf-8' codec can't decode byte 0xfc")
    assert texts("p.parquet", leave_out=["note"]) == ["a", "b"]
    write("folder/train.parquet", Path("p.parquet").read_bytes())
    assert refusal("folder").startswith("folder: row 2: note: is not UTF-8 text (")

    write("table/train.csv", "prompt,note\na,b\nc,Grüße\n".encode("latin-1"))
    message = refusal("table")
    assert message.startswith(f"{Path('table/train.csv').absolute()}: line 3: is not UTF-8 text (")
    assert message.endswith("), in `note`. Save the file as UTF-8.")


def test_text_in_utf_16_is_refused():
    write("p.jsonl", lines("a").encode("utf-16"))
    assert "line 1: is not UTF-8 JSON ('utf-8' codec can't decode byte 0xff in position 0" in refusal("p.jsonl")


def test_files_and_rows_that_differ_keep_what_each_has():
    expected = [{"x": 1}, {"x": "s", "day": "2025-01-31"}, {"y": [1]}]
    for i, metadata in enumerate(expected):
        write(f"folder/train-{i}.jsonl", json.dumps({"prompt": str(i), **metadata}))
        parquet(f"tables/train-{i}.parquet", prompt=[str(i)], **{key: [value] for key, value in metadata.items()})
    for source in ("folder", "folder/*.jsonl", "tables", "tables/*.parquet"):
        assert [metadata for _, metadata in answers(source)] == expected


def test_a_file_of_a_dataset_that_differs_too_much_is_named():
    import datasets

    write("folder/train-0.jsonl", lines("a"))
    write("folder/train-1.jsonl", lines("b") + '{"prompt": 2}\n')
    assert f"{Path('folder/train-1.jsonl').absolute()}, line 2: prompt: is of type int. Write" in refusal("folder")
    parquet("tables/train-0.parquet", prompt=["a"])
    parquet("tables/train-1.parquet", question=["b"])
    assert refusal("tables").startswith(f"{Path('tables/train-1.parquet').absolute()}: has no column 'prompt' or")
    write("list/train.json", '[{"prompt": "a"},\n {"prompt": "b"}]')  # `datasets` reads this
    assert texts("list") == ["a", "b"]
    write("list/train.json", '[{"prompt": "a"},\n {"prompt": ')
    message = refusal("list")
    assert message.startswith(
        f"{Path('list/train.json').absolute()}: is not UTF-8 JSON (Expecting value: line 2 column"
    )
    write("list/train.json", '[{"prompt": "a", "prompt": "b"}]')
    assert "train.json: prompt: stands there twice." in refusal("list")
    write("list/train.json", '{"prompt": "a",\n "answer": 1}')
    assert texts("list") == ["a"]
    write("list/train.json", lines("a") + '{"prompt": "b", ')
    assert f"{Path('list/train.json').absolute()}, line 2: is not UTF-8 JSON" in refusal("list")
    mixed = {"prompt": ["a"], "x": [1]}, {"prompt": ["b"], "x": ["s"]}
    for i, rows in enumerate(mixed):  # written by `datasets`, which then reads them too
        Path("own").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows).to_parquet(f"own/train-{i}.parquet")
    message = refusal("own")
    assert str(Path("own/train-1.parquet").absolute()) in message
    assert "'s' as a scalar of type int64" in message


def test_a_csv_row_with_too_many_fields_is_refused():
    write("folder/train.csv", "prompt,answer\na,1\nb,2,3\n")
    assert refusal("folder").startswith(f"{Path('folder/train.csv').absolute()}: is not a readable CSV file (")
    write("folder/train.csv", "prompt,answer\na,1,2\n")
    assert "is not a readable CSV file (" in refusal("folder")


# Subsets and splits


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
