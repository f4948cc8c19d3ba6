"""Config files as people write them, and those that nobody should: read as YAML 1.2 says, or refused with the line."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path

import pytest

from components.bandit.config import parse as parse_laboratory
from components.config.errors import ConfigError
from components.config.strict_yaml import load_yaml, read_text
from components.run_config import parse

DEMO = "demo: {}\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in pairwise("abcdefghi")
)


def refusal(text, read=load_yaml):
    with pytest.raises(ConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert len(message) < 6000
    return message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[("010", 10), ("-010", -10), ("+5", 5), ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"), ("0o8", "0o8")],
        *[("1_000", "1_000"), ("1,000", "1,000"), ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1.5:2", "1.5:2")],
        *[("5e-4", 0.0005), ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-2.5E+1", -25.0), (".inf", math.inf)],
        *[("true", True), ("False", False), ("TRUE", True), ("tRUE", "tRUE"), ("y", "y"), ("n", "n")],
        *[("null", None), ("~", None), ("", None), ("NULL", None), ("none", "none"), ("None", "None")],
        *[("2024-01-01", "2024-01-01"), ("2024-01-01 10:00:00", "2024-01-01 10:00:00"), ("12:30:45", "12:30:45")],
        *[("'yes'", "yes"), ('"no"', "no"), ("'010'", "010"), ("'1e3'", "1e3"), ("''", ""), ("'null'", "null")],
        *[("!!str 010", "010"), ("!!int '7'", 7), ("!!float 3", 3.0), ("!!bool 'true'", True), ("!!str yes", "yes")],
        *[("'<<'", "<<"), ("=", "="), ("[010, no more]", [10, "no more"]), ("9223372036854775807", 2**63 - 1)],
    ],
)
def test_scalars_are_those_of_yaml_1_2(written, value):
    """Written out from the core schema, section 10.3.2 of the specification."""
    found = load_yaml(f"key: {written}")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("word", ["yes", "Yes", "YES", "on", "On", "no", "No", "NO", "off", "OFF"])
def test_old_booleans_are_neither_text_nor_guessed(word):
    meant = "true" if word.lower() in ("yes", "on") else "false"
    message = refusal(f"policy:\n  template_options:\n    thinking: {word}\n")
    assert message.startswith(f"policy.template_options.thinking: {word} may mean {meant}")
    assert f"Write {meant}, or '{word}'" in message
    assert "(line 3)" in message


@pytest.mark.parametrize("key", ["1", "yes", "010", "2024-01-01", "null", "1.5", "true", "~"])
def test_keys_are_text(key):
    assert load_yaml(f"{key}: 1") == {key: 1}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed: 1\n\nseed: 2", ["seed: is given twice", "lines 1 and 3"]),
        ("a:\n  b: {c: 1, c: 1}", ["c: is given twice", "lines 2 and 2"]),
        ("a:\n- b: 1\n  'b': 1", ["b: is given twice", "lines 2 and 3"]),
        ("1: a\n'1': b", ["1: is given twice"]),
        ("a: &a {x: 1}\n<<: *a\n<<: *a", ["<<: is given twice", "lines 2 and 3"]),
        ("a: &a {b: *a}", ["inside itself", "line 1"]),
        ("a: &a [*a]", ["inside itself", "line 1"]),
        ("x: 1\na: &a {<<: *a}", ["inside itself", "line 2"]),
        (LAUGHS, ["200,000 characters", "line 6"]),
        ("a: &a " + "x" * 9000 + "\nb: [" + "*a, " * 100 + "]", ["200,000 characters", "line 2"]),
        ("".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else 1}]\n" for i in range(400)), ["50 levels", "line 50"]),
        ("[" * 10_000, ["50 levels", "line 1"]),
        ("{a: " * 10_000, ["50 levels", "line 1"]),
        ("- " * 10_000, ["50 levels", "line 1"]),
        ("\n".join(" " * i + "a:" for i in range(400)), ["50 levels", "line 50"]),
        ("seed: " + "9" * 5000, ["seed: 9999", "64 bits", "line 1"]),
        ("seed: 9223372036854775808", ["64 bits"]),
        ("\nx: 1e999", ["x: 1e999 is too large", "quotes", "line 2"]),
        ("x: !!python/object/apply:os.system [ls]", ["x: the tag !!python/object/apply:os.system", "line 1"]),
        ("x: !!binary aGk=", ["!!binary"]),
        ("x: !!set {a}", ["!!set"]),
        ("x: !mine 3", ["!mine"]),
        ("x: !!int many", ["'many' is no !!int"]),
        ("x: !!map [a]", ["!!map"]),
        ("? [a]\n: b", ["a key must be text", "line 1"]),
        ("? {a: b}\n: b", ["a key must be text"]),
        ("'': 1", ["a key must be text"]),
        ("<<: 3", ["<<: takes a mapping"]),
        ("a: 1\n---\nb: 2", ["another document", "line 2", "Keep one document"]),
        ("a:\n\tb: 1", ["line 2", "spaces, not with tabs"]),
        ("a: 1\nb: \0", ["line 2", "'\\x00'"]),
        ('a: "\\0"', ["a: ", "NUL"]),
        ('a: "\\ud800"', ["half a character"]),
        ('"\\ud800": 1', ["half a character"]),
        ('a: "\\U00110000"', ["not valid YAML"]),
        ('a: "\\UFFFFFFFF"', ["not valid YAML"]),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", ["not valid YAML"]),
        ("a: *b", ["undefined alias", "line 1"]),
        ("# a comment\n", ["mapping of sections", "empty"]),
        ("---\n...\n", ["mapping of sections", "empty"]),
        ("seed:1", ["mapping of sections", "it is str", "space"]),
    ],
)
def test_what_is_refused_and_where(text, parts):
    begin = time.process_time()
    message = refusal(text)
    assert [part for part in parts if part not in message] == []
    assert time.process_time() - begin < 10


def test_byte_order_mark_and_windows_lines_are_read():
    assert load_yaml("\ufeffa: 1\r\nb:\r\n  c: x\r\n") == {"a": 1, "b": {"c": "x"}}


def test_merge_keys():
    """By https://yaml.org/type/merge.html: a mapping's own keys first, then the first of several sources."""
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\nc: {<<: [*b, *a], z: 3}\nd: {z: 4, <<: {z: 5, w: 5}}"
    found = load_yaml(text)
    assert found["b"] == {"x": 1, "y": 2, "z": 2}
    assert found["c"] == {"x": 1, "y": 2, "z": 3}
    assert found["d"] == {"z": 4, "w": 5}


@pytest.mark.thorough
@pytest.mark.parametrize("read", [parse, parse_laboratory])
def test_many_keys_take_no_time_and_few_lines(read):
    many = "".join(f"k{i}: 1\n" for i in range(15_000))
    begin = time.process_time()
    message = refusal(many, read)
    assert time.process_time() - begin < 30  # quadratic, it takes minutes
    assert message.splitlines()[-1] == "… and 14,980 more."
    assert len(message.splitlines()) == 21
    assert "200,000 characters" in refusal("".join(f"k{i}: 1\n" for i in range(100_000)), read)


@pytest.mark.parametrize(
    ("setting", "begin", "remedy"),
    [
        ("seed: 1_000", "seed: '1_000' cannot be used", "Write digits alone, such as 1000."),
        ("seed: 1:30", "seed: '1:30' cannot be used", "Write digits alone, such as 1000."),
        ("prompts: {allow_duplicates: y}", "prompts.allow_duplicates: 'y' cannot be used", "Write true or false."),
        ("training: {learning_rate: 1_0.5}", "training.learning_rate: '1_0.5'", "Write digits, as in 0.5 or 1e-6."),
        ("policy: {revision: 0123}", "policy.revision: 123", "Put text that looks like a number in quotes."),
    ],
)
def test_a_value_of_another_type_says_how_it_is_written(setting, begin, remedy):
    message = refusal(DEMO + setting, parse)
    assert message.startswith(begin)
    assert message.endswith(remedy)


def test_long_values_are_cut():
    assert len(refusal(f"{DEMO}seed: {'x' * 100_000}", parse)) < 400


def test_files_that_are_none(tmp_path):
    (tmp_path / "sixteen.yaml").write_text(DEMO, "utf-16")
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(128, 256)))
    for name, said in [
        ("sixteen.yaml", "is not UTF-8 text"),
        ("bytes.yaml", "is not UTF-8 text"),
        ("none.yaml", "No such file"),
        (".", "Is a directory"),
        ("x" * 5000, "File name too long"),
    ]:
        with pytest.raises(ConfigError, match=said) as caught:
            read_text(tmp_path / name)
        assert str(tmp_path / name)[:200] in str(caught.value)
    with pytest.raises(ConfigError, match="null byte"):
        read_text(tmp_path / "a\0b")
    (tmp_path / "long.yaml").write_text("# " + "x" * 10**6)
    for path in (tmp_path / "long.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"^{path}: the config has more than 200,000 characters"):
            read_text(path)
