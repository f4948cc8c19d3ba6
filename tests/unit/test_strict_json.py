"""JSON in which nothing is dropped unseen."""

from __future__ import annotations

import json

import pytest

from components.config.strict_json import JsonError, loads, read, read_object


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -0.5, 'a "quoted" \\ {text: [}', [], {}, [{"a": 1}, {"a": 2}], {"a": {"a": {"a": ["a:", '"a":']}}}],
)
def test_reads_what_python_writes(value):
    for text in (json.dumps(value), json.dumps(value, indent=2), f"\ufeff{json.dumps(value)}".encode()):
        assert loads(text) == value


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ('{"a": 1, "a": 1}', "a", 1),
        ('{\n"a": 1,\n"b": {"a": 2},\n"a": 3\n}', "a", 4),
        ('[{"x": 1},\n {"x": 1, "y": [{"z": 1,\n "z": 2}]}]', "z", 3),
        ('{"a": "\\"a\\": {", \n"b": ["a", "b"],\n "\\u0061" : 2}', "a", 3),
        ('{"": 1, "": 2}', "", 1),
        ('{"outer": {"k": 1},\n "k": 2,\n "k": 3}', "k", 3),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_line(text, key, line):
    with pytest.raises(JsonError) as caught:
        loads(text)
    assert str(caught.value) == f"line {line}: the key {key!r} stands twice in one object. Keep one of the two"
    assert loads(text, unique=False) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ('{"a": 1} x', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("9" * 5000, "digits"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (bytes(range(256)), "not UTF-8"),
        ("\0", "not JSON"),
    ],
)
def test_what_is_none(text, said):
    with pytest.raises(JsonError, match=said):
        loads(text)


def test_files(tmp_path):
    file = tmp_path / "file.json"
    file.write_text("[1]")
    assert read(file) == [1]
    with pytest.raises(JsonError, match="holds list"):
        read_object(file)
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
