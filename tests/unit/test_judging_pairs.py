"""Labelled pairs: the lines of a file that are read, and those that are refused."""

from __future__ import annotations

import json

import pytest

from components.config.errors import PromptError
from components.judging.pairs import read_pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not UTF-8 JSON"),
        ("[]", 'line 2: is no object. Write {"prompt": "…", "chosen": "…", "rejected": "…"}.'),
        ('{"chosen": "a", "rejected": "b"}', "line 2: has 0 of `prompt` and `messages`; its keys: chosen, rejected."),
        ('{"prompt": "p", "messages": [], "chosen": "a", "rejected": "b"}', "line 2: has 2 of `prompt` and `messages`"),
        ('{"prompt": "p", "chosen": "a"}', "line 2: rejected: is missing or no text. Write a response, or turns"),
        ('{"prompt": "p", "chosen": 1, "rejected": "b"}', "line 2: chosen: is missing or no text."),
        (
            '{"prompt": "p", "chosen": [{"role": "user", "content": "a"}], "rejected": "b"}',
            "line 2: chosen: is missing",
        ),
        ('{"prompt": "p", "chosen": "a", "rejected": "a"}', "line 2: chosen and rejected are the same text."),
        ('{"prompt": " ", "chosen": "a", "rejected": "b"}', "line 2: prompt: is blank."),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"prompt": "p", "chosen": "a", "rejected": "b"}}\n{line}\n')
    with pytest.raises(PromptError) as raised:
        read_pairs(path)
    assert str(raised.value).startswith(f"{path}: 1 of 2 lines cannot be used:\n")
    assert message in str(raised.value)


def test_turns_are_read_and_equal_prompts_stay_apart(tmp_path):
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
    record = {"messages": turns[:1], "chosen": turns, "rejected": "b", "answer": "4"}
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join([json.dumps(record)] * 2))
    found = read_pairs(path)
    assert [(pair.prompt.id, pair.prompt.text, pair.prompt.answer, pair.chosen, pair.rejected) for pair in found] == [
        ("line 1", "p", "4", "a", "b"),
        ("line 2", "p", "4", "a", "b"),
    ]
