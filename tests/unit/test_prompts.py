"""Prompts: what is read, what is refused and in which words, and how prompts are dealt out."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import choose, into_shards, load, refuse_overlap, save, split_held_out


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(i), ({"role": "user", "content": f"question {i}"},)) for i in range(count)]


def ids(items: list[Prompt]) -> list[str]:
    return [prompt.id for prompt in items]


def write(tmp_path: Path, *lines: str, name: str = "prompts.jsonl") -> str:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def refusal(source: str, **options: bool) -> str:
    with pytest.raises(PromptError) as caught:
        load(source, split="train", **options)
    return str(caught.value)


def test_a_record_becomes_a_prompt(tmp_path):
    line = '{"id": 7, "prompt": " 2 + 2? ", "answer": 4, "metadata": {"level": 1}, "source": "book", "note": null}'
    [prompt] = load(write(tmp_path, line), split="train")
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
    [prompt] = load(write(tmp_path, json.dumps({"messages": turns})), split="train")
    assert list(prompt.messages) == turns
    assert prompt.text == "Sort 2 1"


def test_ids_are_hashes_of_messages_and_answer(tmp_path):
    source = write(tmp_path, '{"prompt": "2 + 2?", "answer": 4}', '{"prompt": "Grüße", "tag": "a"}')
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
    source = write(tmp_path, '{"prompt": "good"}', "", line)
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
    message = refusal(write(tmp_path, *lines)).splitlines()
    assert message[0].endswith("prompts.jsonl: 20 of 100 lines cannot be used:")
    assert [line.split(":")[0] for line in message[1:-1]] == [f"  line {i}" for i in range(5, 51, 5)]
    assert message[-1] == "  … and 10 more"


def test_duplicates_are_refused_with_both_lines(tmp_path):
    source = write(
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
    read = load(write(tmp_path, *lines), split="train", allow_duplicates=True)
    assert ids(read) == ["x", "x-2", "x-3", "x-2-2", "x-4"]
    assert [prompt.text for prompt in read] == ["a", "a", "a", "b", "c"]


@pytest.mark.parametrize(
    ("source", "reason", "remedy"),
    [
        ("absent.jsonl", "there is no such file (", "Correct the path."),
        ("absent.parquet", "there is no such file (", "Correct the path."),
        (
            "absent.csv",
            "prompts are not read from this kind of file",
            "Use a .jsonl, .json (one object per line)",
        ),
        ("notes", "prompts are not read from this kind of file", "Use a .jsonl"),
        ("./absent/prompts", "there is no such file or directory", "or a Hugging Face dataset"),
        ("", "there is no such file or directory", "or a Hugging Face dataset"),
        ("empty.jsonl", "holds no prompts", "with at least one record."),
        ("blank.jsonl", "holds no prompts", "with at least one record."),
        ("text.parquet", "is not a readable Parquet file (", "Write it again."),
        ("folder", "split 'train' of this dataset cannot be loaded (", "Correct its name or prompts.split"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(tmp_path, monkeypatch, source, reason, remedy):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '{"prompt": "a"}', name="notes")
    write(tmp_path, '{"prompt": "a"}', name="text.parquet")
    write(tmp_path, " ", "", name="blank.jsonl")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    message = refusal(source)
    assert message.startswith(f"{source}: ")
    assert reason in message
    assert remedy in message


def test_parquet(tmp_path):
    path = tmp_path / "prompts.parquet"
    turns = [{"role": "user", "content": "b", "name": None}]
    rows = {
        "prompt": ["a", None],
        "messages": [None, turns],
        "answer": ["1", None],
        "level": pd.array([3, None], dtype="Int64"),
        "made": [datetime.date(2025, 1, 31), None],
    }
    pd.DataFrame(rows).to_parquet(path)
    first, second = load(str(path), split="train")
    assert (first.text, first.answer) == ("a", "1")
    assert first.metadata == {"level": 3, "made": "2025-01-31"}
    assert (second.messages, second.answer, second.metadata) == (
        ({"role": "user", "content": "b"},),
        None,
        {},
    )

    # pandas writes a missing float as null, which is no answer rather than a bad one
    pd.DataFrame({"prompt": ["a", "b"], "answer": [1.5, float("nan")]}).to_parquet(path)
    assert [prompt.answer for prompt in load(str(path), split="train")] == ["1.5", None]
    pd.DataFrame({"prompt": ["a", " "]}).to_parquet(path)
    assert "1 of 2 rows cannot be used:\n  row 2: prompt: is blank" in refusal(str(path))


def test_dataset_directories(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    parts = {name: datasets.Dataset.from_list([{"prompt": name, "n": 1}]) for name in ("train", "test")}
    parts["test"].save_to_disk(tmp_path / "one")
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    (tmp_path / "files").mkdir()
    for name in parts:
        write(tmp_path, json.dumps({"prompt": name, "n": 1}), name=f"files/{name}.jsonl")

    for directory in ("one", "both", "files"):
        [prompt] = load(str(tmp_path / directory), split="test")
        assert (prompt.text, prompt.metadata) == ("test", {"n": 1})
    with pytest.raises(PromptError, match=r"has no split 'dev'\. Set prompts.split to one of: train, test\."):
        load(str(tmp_path / "both"), split="dev")
    with pytest.raises(PromptError, match=r"split 'dev' of this dataset cannot be loaded .*'train', 'test'"):
        load(str(tmp_path / "files"), split="dev")


def test_a_dataset_name_that_cannot_be_reached_is_refused(monkeypatch):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(PromptError, match=r"^no-such/set: split 'train' .* also needs the network"):
        load("no-such/set", split="train")


def test_what_is_saved_loads_again(tmp_path):
    saved = [
        Prompt("a", ({"role": "user", "content": "Grüße\n\u2028"},), "4", {"level": 1, "tags": ["x"]}),
        Prompt("b", ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})),
    ]
    save(saved, tmp_path / "out.jsonl")
    assert load(str(tmp_path / "out.jsonl"), split="train") == saved
    dated = Prompt("c", ({"role": "user", "content": "c"},), None, {"made": datetime.date(2025, 1, 31)})
    save([dated], tmp_path / "out.jsonl")
    assert load(str(tmp_path / "out.jsonl"), split="train")[0].metadata == {"made": "2025-01-31"}


def test_sixty_thousand_prompts(tmp_path):
    source = write(tmp_path, *(json.dumps({"prompt": f"question {i}", "n": i}) for i in range(60_000)))
    read = load(source, split="train")
    train, evaluation = split_held_out(read, 256, seed=0)
    refuse_overlap(train, evaluation)
    assert (len(train), len(evaluation)) == (59_744, 256)
    assert [prompt.metadata["n"] for prompt in read] == list(range(60_000))


def test_held_out_prompts_are_a_seeded_draw_in_the_order_given():
    items = prompts(100)
    train, evaluation = split_held_out(items, 30, seed=1)
    assert len(evaluation) == 30
    assert sorted(ids(train) + ids(evaluation), key=int) == ids(items)
    assert ids(train) == sorted(ids(train), key=int)
    assert ids(evaluation) == sorted(ids(evaluation), key=int)
    assert ids(evaluation) != ids(items)[:30]
    assert split_held_out(items, 30, seed=1) == (train, evaluation)
    assert split_held_out(items, 30, seed=2)[1] != evaluation


def test_every_prompt_is_held_out_equally_often():
    drawn = Counter(p.id for seed in range(2000) for p in split_held_out(prompts(5), 2, seed)[1])
    # 2000 draws with probability 2/5: mean 800, standard deviation 21.9
    assert all(abs(drawn[str(i)] - 800) < 4 * 21.9 for i in range(5))


def test_duplicates_of_held_out_prompts_are_not_trained_on():
    items = [Prompt(f"{i}-{copy}", p.messages) for copy in range(2) for i, p in enumerate(prompts(10))]
    train, evaluation = split_held_out(items, 4, seed=0)
    assert len(evaluation) == 4
    assert len(train) == 12
    refuse_overlap(train, evaluation)


@pytest.mark.parametrize("held_out", [3, 4])
def test_holding_out_everything_is_refused(held_out):
    with pytest.raises(PromptError, match=rf"prompts.held_out: {held_out} of 3 .* Lower prompts.held_out"):
        split_held_out(prompts(3), held_out, seed=0)


def test_overlap_is_refused_by_messages_not_by_id():
    train = prompts(20)
    refuse_overlap(train, [Prompt("0", ({"role": "user", "content": "another"},))])
    shared = [Prompt(f"e{i}", p.messages) for i, p in enumerate(train[:11])]
    with pytest.raises(PromptError) as caught:
        refuse_overlap(train, [*shared, Prompt("new", ({"role": "user", "content": "new"},))])
    message = str(caught.value)
    assert message.startswith("prompts.evaluation: 11 evaluation prompts are also training prompts: 'e0', 'e1', ")
    assert "'e9', …. Remove them from prompts.train or from prompts.evaluation." in message
    assert "e10" not in message


@pytest.mark.parametrize(("count", "per_iteration"), [(5, 2), (5, 3), (7, 4), (6, 3), (4, 4), (10, 9), (1, 1)])
def test_iterations_use_every_prompt_once_per_pass(count, per_iteration):
    for seed in range(20):
        chosen = [
            ids(choose(prompts(count), per_iteration=per_iteration, iteration=t, seed=seed))
            for t in range(1, 2 * count + 1)
        ]
        assert all(len(set(names)) == per_iteration for names in chosen)
        dealt = [name for names in chosen for name in names]
        for start in range(0, len(dealt), count):
            assert sorted(dealt[start : start + count], key=int) == ids(prompts(count))


def test_the_choice_depends_on_seed_iteration_and_shuffle_alone():
    items = prompts(50)
    first = choose(items, per_iteration=50, iteration=1, seed=0)
    assert choose(items, per_iteration=50, iteration=1, seed=0) == first
    assert choose(items, per_iteration=50, iteration=1, seed=1) != first
    assert choose(items, per_iteration=50, iteration=2, seed=0) != first
    assert ids(first) != ids(items)


def test_the_choice_of_an_iteration_across_two_shuffles_is_fair():
    # Iteration 2 of 3-from-5 holds the two left over and one of the three that iteration 1 used.
    counts = Counter(p.id for seed in range(2000) for p in choose(prompts(5), per_iteration=3, iteration=2, seed=seed))
    # 2000 draws with probability 3/5: mean 1200, standard deviation 21.9
    assert all(abs(counts[str(i)] - 1200) < 4 * 21.9 for i in range(5))


def test_more_prompts_per_iteration_than_there_are_is_refused():
    with pytest.raises(PromptError, match=r"prompts.per_iteration: 4 exceeds the 3 .* Use 3 or fewer"):
        choose(prompts(3), per_iteration=4, iteration=1, seed=0)


def test_shards_are_contiguous_and_even():
    assert [ids(shard) for shard in into_shards(prompts(7), 3)] == [["0", "1", "2"], ["3", "4"], ["5", "6"]]
    assert into_shards(prompts(4), 1) == [prompts(4)]
    with pytest.raises(PromptError, match=r"5 shards cannot share 4 prompts\. Lower prompts.shards"):
        into_shards(prompts(4), 5)
