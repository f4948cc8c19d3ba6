"""Prompts: what is read, what is refused and in which words, and how prompts are dealt out."""

from __future__ import annotations

import json

import pytest

from components.data.records import Prompt
from components.prompts import load
from support.prompt_files import ids, refusal, write_lines


def test_a_record_becomes_a_prompt(tmp_path):
    line = '{"id": 7, "prompt": " 2 + 2? ", "answer": 4, "metadata": {"level": 1}, "source": "book", "note": null}'
    [prompt] = load(write_lines(tmp_path, line), split="train")
    assert prompt == Prompt(
        id="7",
        messages=({"role": "user", "content": " 2 + 2? "},),
        answer="4",
        metadata={"level": 1, "source": "book"},
    )
    assert prompt.text == " 2 + 2? "


def test_messages_keep_their_turns(tmp_path):
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Sort 2 1"},
    ]
    [prompt] = load(write_lines(tmp_path, json.dumps({"messages": turns})), split="train")
    assert list(prompt.messages) == turns
    assert prompt.text == "Sort 2 1"


def test_ids_are_hashes_of_messages_and_answer(tmp_path):
    source = write_lines(tmp_path, '{"prompt": "2 + 2?", "answer": 4}', '{"prompt": "Grüße", "tag": "a"}')
    # printf '%s' '[[["user","2 + 2?"]],"4"]' | sha256sum, and the same for '[[["user","Grüße"]],null]'
    assert ids(load(source, split="train")) == ["44ce04a9b89072b7", "284a4afe223124e0"]


def test_line_ends_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "one"}\r\n\r\n  \n{"prompt": "line\xe2\x80\xa8separator"}\n{"prompt": ""}'
    )
    assert refusal(str(path)).endswith(
        "prompts.json: 1 of 3 lines cannot be used:\n"
        "  line 5: prompt: is blank. Write the prompt, or remove the record."
    )
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0])
    assert [prompt.text for prompt in load(str(path), split="train")] == ["one", "line\u2028separator"]


USER = '{"role": "user", "content": "a"}'


@pytest.mark.parametrize(
    ("line", "reason", "remedy"),
    [
        ('{"prompt": "a"', "is not UTF-8 JSON (Expecting ',' delimiter", "Write one object on each line."),
        ("prompt: a", "is not UTF-8 JSON (Expecting value", "Write one object on each line."),
        ('{"prompt": "\\ud83d"}', "surrogates not allowed", "Write one object on each line."),
        ("[" * 100_000, "is not UTF-8 JSON (", "Write one object on each line."),
        ('["a"]', "is of type list, not an object", 'Write {"prompt": "…"}.'),
        ('"a"', "is of type str, not an object", 'Write {"prompt": "…"}.'),
        ('{"prompt": ""}', "prompt: is blank", "Write the prompt, or remove the record."),
        ('{"prompt": " \\n\\t"}', "prompt: is blank", "Write the prompt, or remove the record."),
        ('{"question": "a", "id": 1}', "its keys: question, id", "name it in prompts.column."),
        ('{"prompt": null}', "has neither `prompt` nor `messages`; its keys: none", "Rename"),
        (
            f'{{"prompt": "a", "messages": [{USER}]}}',
            "has both `prompt` and `messages`",
            "or name it in prompts.column.",
        ),
        ('{"prompt": 3}', "prompt: is of type int", "Write text"),
        ('{"messages": "a"}', "messages: is of type str", "Write a list of turns {role, content}."),
        ('{"messages": []}', "messages: is empty", "Write a list of turns {role, content}."),
        ('{"messages": ["a"]}', "messages[0]: is not a mapping of `role` and `content`", "Write it so."),
        (f'{{"messages": [{USER}, {{"role": "user"}}]}}', "messages[1]: is not a mapping", "Write it so."),
        ('{"messages": [{"role": "user", "content": 1}]}', "both text", "Write it so."),
        ('{"messages": [{"role": "user", "content": "a", "tool": 1}]}', "messages[0]", "Write it so."),
        (
            '{"messages": [{"role": "human", "content": "a"}]}',
            "role 'human' is unknown",
            "Use one of: system, user, assistant.",
        ),
        (
            f'{{"messages": [{USER}, {{"role": "assistant", "content": "b"}}]}}',
            "the last turn is by the assistant",
            "End with a turn of the user; prompts.column: messages leaves an answer out.",
        ),
        ('{"messages": [{"role": "user", "content": " "}]}', "prompt: is blank", "Write the prompt"),
        ('{"prompt": "a", "answer": NaN}', "answer: is nan, not a number", "leave `answer` out."),
        ('{"prompt": "a", "answer": -Infinity}', "answer: is -inf, not a number", "Correct it"),
        ('{"prompt": "a", "answer": [1]}', "answer: is of type list", "Write it as text or as a number."),
        ('{"prompt": "a", "answer": true}', "answer: is of type bool", "Write it as text or as a number."),
        ('{"prompt": "a", "metadata": 1}', "metadata: is of type int", "Write a mapping."),
        (
            '{"prompt": "a", "level": 1, "metadata": {"level": 2}}',
            "metadata: 'level' stands inside it and beside it",
            "Rename one of the two.",
        ),
        ('{"prompt": "a", "id": 1.5}', "id: 1.5 cannot be used", "Write text or a whole number"),
        ('{"prompt": "a", "id": false}', "id: False cannot be used", "Write text or a whole number"),
        ('{"prompt": "a", "id": " "}', "id: ' ' cannot be used", "leave `id` out."),
    ],
)
def test_a_bad_line_is_refused_with_its_number_reason_and_remedy(tmp_path, line, reason, remedy):
    source = write_lines(tmp_path, '{"prompt": "good"}', "", line)
    message = refusal(source)
    first, _, second = message.partition("\n  line 3: ")
    assert first == f"{source}: 1 of 2 lines cannot be used:"
    assert reason in second
    assert remedy in second


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"prompt": "Grüße"}\n'.encode("latin-1"))
    assert "line 1: is not UTF-8 JSON ('utf-8' codec can't decode byte 0xfc" in refusal(str(path))


def test_all_bad_lines_are_counted_and_ten_are_shown(tmp_path):
    lines = [json.dumps({"prompt": f"good {i}" if i % 5 else 0}) for i in range(1, 101)]
    message = refusal(write_lines(tmp_path, *lines)).splitlines()
    assert message[0].endswith("prompts.jsonl: 20 of 100 lines cannot be used:")
    assert [line.split(":")[0] for line in message[1:-1]] == [f"  line {i}" for i in range(5, 51, 5)]
    assert message[-1] == "  … and 10 more"


def test_duplicates_are_refused_with_both_lines(tmp_path):
    source = write_lines(
        tmp_path,
        '{"prompt": "a", "id": "x"}',
        '{"prompt": "b", "id": "x"}',
        '{"prompt": "a", "id": "y", "answer": "1"}',
        '{"prompt": "b"}',
        '{"prompt": "b"}',
    )
    remedy = "Remove one of the two, or set prompts.allow_duplicates."
    assert refusal(source).splitlines()[1:] == [
        f"  line 2: id: the same as in line 1. {remedy}",
        f"  line 3: messages: the same as in line 1. {remedy}",
        f"  line 5: messages: the same as in line 4. {remedy}",
    ]


def test_allowed_duplicates_get_ids_of_their_own(tmp_path):
    lines = ['{"prompt": "a", "id": "x"}'] * 3 + [
        '{"prompt": "b", "id": "x-2"}',
        '{"prompt": "c", "id": "x"}',
    ]
    read = load(write_lines(tmp_path, *lines), split="train", allow_duplicates=True)
    assert ids(read) == ["x", "x-2", "x-3", "x-2-2", "x-4"]
    assert [prompt.text for prompt in read] == ["a", "a", "a", "b", "c"]
