"""What a judge finds in a prompt is the same in `start` as in later steps, which read prompts back from JSON."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import load, save
from components.prompts.plain import plain


class Colour(str, enum.Enum):  # noqa: UP042 - the older form gives another text to str()
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


UTC = datetime.UTC
ID = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.date(2025, 1, 31), "2025-01-31"),
        (datetime.datetime(2025, 1, 31, 12, 30, tzinfo=UTC), "2025-01-31T12:30:00+00:00"),
        (datetime.time(12, 30), "12:30:00"),
        (pd.Timestamp("2025-01-31 12:30:00.000000001"), "2025-01-31T12:30:00.000000001"),
        (np.datetime64("2025-01-31"), "2025-01-31"),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(ID), ID),
        ((1, (2, 3)), [1, [2, 3]]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.25), 0.25),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (OrderedDict(b=1, a=np.int64(2)), {"b": 1, "a": 2}),
        ([None, True, 2, 2.5, "x", {"y": []}], [None, True, 2, 2.5, "x", {"y": []}]),
        (10**30, 10**30),
        ("nan", "nan"),
        ("NaT", "NaT"),
    ],
)
def test_values_become_what_json_gives_back(value, expected):
    found = plain(value, "x")
    assert found == expected
    assert type(found) is type(expected)
    assert repr(json.loads(json.dumps(found))) == repr(found) == repr(expected)


def test_a_column_with_a_dot_in_its_name():
    with pytest.raises(PromptError, match=r"^a\.b\[0\]\.c: is of type bytes.* leave `a\.b` out\.$"):
        plain([{"c": b""}], "a.b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            float("nan"),
            "x: is nan, not a number, which JSON cannot hold. Correct it, or let prompts.leave_out leave `x`",
        ),
        (-np.inf, "x: is -inf, not a number"),
        (np.float32("nan"), "x: is nan, not a number"),
        (decimal.Decimal("NaN"), "x: is NaN, not a number"),
        (decimal.Decimal("sNaN"), "x: is sNaN, not a number"),
        (decimal.Decimal("Infinity"), "x: is Infinity, not a number"),
        (pd.NaT, "x: is NaT, not a number"),
        (np.datetime64("NaT"), "x: is NaT, not a number"),
        ({"a": [1, {"b": float("inf")}]}, "x.a[1].b: is inf, not a number"),
        (b"\x89PNG", "x: is of type bytes, which JSON cannot hold. Write text or a number, or let prompts.leave_out"),
        ({1, 2}, "x: is of type set, which JSON cannot hold"),
        (frozenset(), "x: is of type frozenset, which JSON"),
        (datetime.timedelta(1), "x: is of type timedelta, which JSON"),
        (np.timedelta64(1, "D"), "x: is of type timedelta64, which JSON"),
        (1j, "x: is of type complex, which JSON"),
        (pd.NA, "x: is of type NAType, which JSON"),
        (object(), "x: is of type object, which JSON"),
        ({1: "a"}, "x: has the key 1 of type int, and a key in JSON is text. Write its keys as text, or let prompts."),
        ([{None: 1}], "x[0]: has the key None of type NoneType"),
        ({(1, 2): "a"}, "x: has the key (1, 2) of type tuple"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_place_and_remedy(value, message):
    with pytest.raises(PromptError) as caught:
        plain(value, "x")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("or let prompts.leave_out leave `x` out.")


def anything(rng, depth=3):
    """A random value of JSON."""
    kind = rng.integers(0, 8 if depth else 6)
    if kind < 6:
        text = "".join(chr(rng.choice([0, 10, 13, 34, 92, 97, 0x85, 0xE9, 0x2028, 0x1F600])) for _ in range(3))
        number = float(rng.normal() * 10.0 ** rng.integers(-300, 300))
        return [None, True, int(rng.integers(-(2**62), 2**62)) * 10**20, number, float(rng.integers(-3, 3)), text][kind]
    values = [anything(rng, depth - 1) for _ in range(rng.integers(0, 4))]
    return values if kind == 6 else {f"{i}\u2028": value for i, value in enumerate(values)}


def test_any_metadata_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(str(i), ({"role": "user", "content": f"u{i}"},), None, {"a": anything(rng), "b": anything(rng)})
        for i in range(500)
    ]
    save(prompts, tmp_path / "prompts.jsonl")
    read = load(str(tmp_path / "prompts.jsonl"), split="train")
    assert repr(read) == repr(prompts)  # repr tells 1 from 1.0 and from True


TABLE = {
    "prompt": pa.array(["2 + 2?", "3 + 3?"]),
    "answer": pa.array([decimal.Decimal("4.0"), None]),
    "made": pa.array([datetime.date(2025, 1, 31), None]),
    "seen": pa.array([datetime.datetime(2025, 1, 31, 12, tzinfo=UTC)] * 2, pa.timestamp("ns", "UTC")),
    "half": pa.array([np.float16(0.5)] * 2),
    "by": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "deep": pa.array([{"days": [datetime.date(2025, 2, 1)]}, None]),
}


def table(path, **columns):
    pyarrow.parquet.write_table(pa.table(TABLE | columns), path)
    return str(path)


def test_a_table_gives_values_that_can_be_kept(tmp_path):
    first, second = load(table(tmp_path / "t.parquet"), split="train")
    assert first.answer == "4.0"
    assert first.metadata == {
        "made": "2025-01-31",
        "seen": "2025-01-31T12:00:00+00:00",
        "half": 0.5,
        "by": {"a": 1},
        "deep": {"days": ["2025-02-01"]},
    }
    assert second.metadata == {"seen": "2025-01-31T12:00:00+00:00", "half": 0.5}
    save([first, second], tmp_path / "kept.jsonl")
    assert repr(load(str(tmp_path / "kept.jsonl"), split="train")) == repr([first, second])


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1.0, float("nan")]), "row 2: extra: is nan, not a number"),
        (pa.array([[1.0, float("-inf")], None]), "row 1: extra[1]: is -inf, not a number"),
        (pa.array([None, b"x"]), "row 2: extra: is of type bytes"),
        (pa.array([5, None], pa.duration("s")), "row 1: extra: is of type timedelta"),
        (pa.array([[(1, 2)], None], pa.map_(pa.int64(), pa.int64())), "row 1: extra: has the key 1 of type int"),
        (pa.array([[("a", 1), ("a", 2)], None], pa.map_(pa.string(), pa.int64())), "row 1: extra: cannot be read ("),
        (pa.array([None, 10**14], pa.timestamp("s")), "row 2: extra: cannot be read ("),
    ],
)
def test_a_column_that_cannot_be_kept_is_refused_or_left_out(tmp_path, column, reason):
    source = table(tmp_path / "t.parquet", extra=column)
    with pytest.raises(PromptError) as caught:
        load(source, split="train")
    assert str(caught.value).startswith(source)
    assert reason in str(caught.value)
    assert str(caught.value).endswith("let prompts.leave_out leave `extra` out.")
    assert "extra" not in load(source, split="train", leave_out=["extra"])[0].metadata


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a", "x": NaN}', "x: is nan, not a number"),
        ('{"prompt": "a", "x": {"y": [1, Infinity]}}', "x.y[1]: is inf, not a number"),
        ('{"prompt": "a", "metadata": {"x": 1e999}}', "metadata.x: is inf, not a number"),
        ('{"prompt": "a", "x": %s}' % ("[" * 500 + "]" * 500), "holds lists or mappings too deep inside each other"),
    ],
)
def test_a_line_with_what_json_has_no_value_for(tmp_path, line, reason):
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "good"}}\n{line}\n')
    with pytest.raises(PromptError) as caught:
        load(str(path), split="train")
    assert f"line 2: {reason}" in str(caught.value)


def test_pictures_and_formats_of_a_saved_dataset(tmp_path):
    """A format of numpy is no matter, and a picture is no value for a judge."""
    import datasets

    rows = {"prompt": ["a", "b"], "v": [[1, 2], [3, 4]], "n": [7, None], "picture": [{"bytes": b"x", "path": None}] * 2}
    features = datasets.Features(
        prompt=datasets.Value("string"),
        v=datasets.List(datasets.Value("int8")),
        n=datasets.Value("int8"),
        picture=datasets.Image(),
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    made.with_format("numpy").save_to_disk(tmp_path / "saved")
    with pytest.raises(PromptError, match=r"row 1: picture\.bytes: is of type bytes.*leave `picture` out"):
        load(str(tmp_path / "saved"), split="train")
    read = load(str(tmp_path / "saved"), split="train", leave_out=["picture"])
    assert repr([prompt.metadata for prompt in read]) == "[{'v': [1, 2], 'n': 7}, {'v': [3, 4]}]"
