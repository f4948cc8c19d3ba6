"""What tables and lines hold: whole numbers with gaps, names given twice, bytes that are no text, rows that differ."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from components.prompts import load
from support.prompt_files import answers, lines, parquet, refusal, texts, write


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The working directory, with a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    for name in ("one/train.parquet", "two/train-0.parquet", "two/train-1.parquet"):
        write(name, Path("p.parquet").read_bytes())
    assert refusal("one") == f"{Path('one/train.parquet').absolute()}: {twice}"
    assert refusal("two") == f"{Path('two/train-0.parquet').absolute()}: {twice}"
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
