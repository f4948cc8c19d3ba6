"""Prompts in a column that the config names: what is read from it, what is left out, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from components.config.errors import ConfigError, PromptError
from components.data.records import Prompt
from components.prompts import load, save
from components.run_config import parse

ANSWER = {"role": "assistant", "content": "Paris."}


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def jsonl(path: Path, *records: object) -> str:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return str(path)


def as_source(kind: str, folder: Path, records: list[dict]) -> str:
    """The same records in each form that prompts come in."""
    if kind == "file.jsonl":
        return jsonl(folder / kind, *records)
    if kind == "file.parquet":
        pd.DataFrame(records).to_parquet(folder / kind)
    elif kind == "saved":
        import datasets

        datasets.Dataset.from_list(records).save_to_disk(folder / kind)
    else:  # as the hub has them
        (folder / kind).mkdir()
        pd.DataFrame(records).to_parquet(folder / kind / "train-00000-of-00001.parquet")
    return str(folder / kind)


KINDS = ["file.jsonl", "file.parquet", "saved", "repository"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def refusal(source: str, column: str | None) -> str:
    with pytest.raises(PromptError) as caught:
        load(source, split="train", column=column)
    return str(caught.value)


# As in HuggingFaceH4/ultrafeedback_binarized
BINARIZED = [
    {
        "prompt": "Capital of France?",
        "prompt_id": "0a",
        "chosen": [user("Capital of France?"), ANSWER],
        "messages": [user("Capital of France?"), ANSWER],
        "score_chosen": 8.5,
    },
    {
        "prompt": "And of Spain?",
        "prompt_id": "0b",
        "chosen": [user("And of Spain?"), {"role": "assistant", "content": "Madrid."}],
        "messages": [user("And of Spain?"), {"role": "assistant", "content": "Madrid."}],
        "score_chosen": 7.0,
    },
]


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two_columns_that_could_be_the_prompt(tmp_path, caplog, kind):
    source = as_source(kind, tmp_path, BINARIZED)
    unit = "line" if kind == "file.jsonl" else "row"
    remedy = "has both `prompt` and `messages`. Keep one of them, or name it in prompts.column."
    assert refusal(source, None) == f"{source}: 2 of 2 {unit}s cannot be used:\n" + "\n".join(
        f"  {unit} {i}: {remedy}" for i in (1, 2)
    )

    first, second = load(source, split="train", column="prompt")
    assert first.messages == (user("Capital of France?"),)
    assert first.metadata == {key: value for key, value in BINARIZED[0].items() if key != "prompt"}
    assert second.text == "And of Spain?"
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", ["messages", "chosen"])
def test_a_conversation_is_the_prompt_without_the_answer_at_its_end(tmp_path, caplog, kind, column):
    source = as_source(kind, tmp_path, BINARIZED)
    read = load(source, split="train", column=column)
    assert [prompt.messages for prompt in read] == [(user("Capital of France?"),), (user("And of Spain?"),)]
    assert read[0].metadata == {key: value for key, value in BINARIZED[0].items() if key != column}
    # Same messages, same ids: what the column was called is no part of a prompt.
    assert [prompt.id for prompt in read] == [prompt.id for prompt in load(source, split="train", column="prompt")]
    assert caplog.record_tuples == [
        (
            "components.prompts",
            logging.WARNING,
            f"{source}: left out the assistant's answer at the end of 2 of 2 conversations",
        )
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_another_name(tmp_path, kind):
    # As in openbmb/UltraFeedback
    records = [{"source": "sharegpt", "instruction": text, "models": ["a", "b"]} for text in ("One?", "Two?")]
    source = as_source(kind, tmp_path, records)
    one, two = load(source, split="train", column="instruction")
    assert (one.text, two.text) == ("One?", "Two?")
    assert one.metadata == {"source": "sharegpt", "models": ["a", "b"]}
    # printf '%s' '[[["user","One?"]],null]' | sha256sum
    assert one.id == "f78d064c818a149a"

    keys = "source, instruction, models"
    if kind == "file.jsonl":
        assert f"line 1: has no `question`; its keys: {keys}. Add it, or name another column in prompts.column." in (
            refusal(source, "question")
        )
        assert f"line 1: has neither `prompt` nor `messages`; its keys: {keys}. Rename" in refusal(source, None)
    else:
        remedy = f"Set prompts.column to one of: {keys}."
        assert refusal(source, "question") == f"{source}: has no column 'question'. {remedy}"
        assert refusal(source, None) == f"{source}: has no column 'prompt' or 'messages'. {remedy}"


def test_turns_before_the_answer_stay(tmp_path, caplog):
    system, reply = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Hello."}
    source = jsonl(
        tmp_path / "talks.jsonl",
        {"talk": [system, user("Hi"), reply, user("Bye"), {**ANSWER, "name": None}]},
        {"talk": [system, user("Hi"), reply, user("Sort 2 1")]},
        {"talk": "2 + 2?", "answer": 4},
    )
    first, second, third = load(source, split="train", column="talk")
    assert list(first.messages) == [system, user("Hi"), reply, user("Bye")]
    assert list(second.messages) == [system, user("Hi"), reply, user("Sort 2 1")]
    assert (third.messages, third.answer) == ((user("2 + 2?"),), "4")
    assert caplog.messages == [f"{source}: left out the assistant's answer at the end of 1 of 3 conversations"]


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        (None, "has no `talk`; its keys: id. Add it, or name another column in prompts.column."),
        (3, "talk: is of type int. Write text or a list of turns {role, content}, or name another column"),
        ({"role": ["user"]}, "talk: is of type dict. Write text or a list of turns {role, content}, or name"),
        ([], "talk: is empty. Write text or a list of turns {role, content}, or name another column"),
        ("", "talk: is blank. Write the prompt, or remove the record."),
        ([user(" "), ANSWER], "talk: is blank. Write the prompt, or remove the record."),
        (["Hi"], "talk[0]: is not a mapping of `role` and `content`, both text. Write it so."),
        ([user("Hi"), {"from": "gpt", "value": "a"}], "talk[1]: is not a mapping of `role` and `content`"),
        ([{"role": "human", "content": "Hi"}], "talk[0]: role 'human' is unknown. Use one of: system, user,"),
        ([ANSWER], "talk: holds the assistant's answer alone. Put a turn of the user before it."),
        (
            [user("Hi"), ANSWER, ANSWER],
            "talk: the last turn before the answer is by the assistant. End with a turn of the user.",
        ),
        (
            [{"role": "system", "content": "Be brief."}],
            "talk: the last turn is by the system. End with a turn of the user.",
        ),
    ],
)
def test_what_a_column_cannot_hold(tmp_path, talk, message):
    source = jsonl(tmp_path / "talks.jsonl", {"id": 1, "talk": "Hi"}, {"id": 2, "talk": talk})
    first, _, second = refusal(source, "talk").partition("\n  line 2: ")
    assert first == f"{source}: 1 of 2 lines cannot be used:"
    assert second.startswith(message)


def test_answers_left_out_may_leave_duplicates(tmp_path):
    source = jsonl(
        tmp_path / "talks.jsonl",
        {"talk": [user("Hi"), ANSWER]},
        {"talk": [user("Hi"), {"role": "assistant", "content": "Hello."}]},
    )
    assert "line 2: messages: the same as in line 1. Remove one of the two" in refusal(source, "talk")
    assert len(load(source, split="train", column="talk", allow_duplicates=True)) == 2


def test_other_columns_survive_being_saved(tmp_path):
    read = load(jsonl(tmp_path / "in.jsonl", *BINARIZED), split="train", column="chosen")
    save(read, tmp_path / "out.jsonl")
    assert load(str(tmp_path / "out.jsonl"), split="train") == read
    assert read[0].metadata["prompt"] == "Capital of France?"
    talk = Prompt("a", (user("Hi"), ANSWER, user("Bye")), None, {"messages": [user("Hi")]})
    save([talk], tmp_path / "out.jsonl")
    assert load(str(tmp_path / "out.jsonl"), split="train") == [talk]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("column: ''", "prompts.column: '' cannot be used. String should have at least 1 character."),
        (
            "column: 3",
            "prompts.column: 3 cannot be used. Input should be a valid string. Put text that looks like a number in "
            "quotes.",
        ),
        (
            "column: answer",
            "prompts.column: 'answer' has a meaning of its own. Name the column that holds the prompts.",
        ),
        ("columns: a", "prompts.columns: unknown key. Did you mean 'column'?"),
        ("drop_longer: 0", "prompts.drop_longer: 0 cannot be used. Input should be greater than 0."),
        (
            "drop_longer: 1.5",
            "prompts.drop_longer: 1.5 cannot be used. Input should be a valid integer. Write digits alone, such as "
            "1000.",
        ),
        (
            "drop_longer: true",
            "prompts.drop_longer: True cannot be used. Input should be a valid integer. Write digits alone, such as "
            "1000.",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message):
    config = "policy: {model: m}\njudge: {name: verifier, function: 'a:b'}\nprompts: {train: p.jsonl, %s}"
    with pytest.raises(ConfigError) as caught:
        parse(config % settings)
    assert str(caught.value) == message
    assert parse(config % "column: id_of_it, drop_longer: 7")["prompts"]["drop_longer"] == 7
