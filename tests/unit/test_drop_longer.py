"""Prompts that are too long are dropped in `start`, said how many, and leave the others as they were."""

from __future__ import annotations

import json

import pytest

from components import stages
from components.config.errors import PolicyError, PromptError
from components.data.records import Prompt
from components.prompts import drop_longer
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from support.models.tiny import make_policy

# Tokens of each under the tiny policy's template, which puts BOS before the words: one more than words.
TEXTS = {
    "a": 2,
    "a b c": 4,
    "a b c d": 5,
    "b": 2,
    "c d": 3,
    "c d e f g h": 7,
    "d e f": 4,
    "e f": 3,
    "f g h i": 5,
    "g": 2,
    "h i": 3,
    "i j k": 4,
}
LIMIT = 4
SHORT = [text for text, tokens in TEXTS.items() if tokens <= LIMIT]  # nine of twelve


def score(response, prompt):
    """A judge that is not asked for much."""
    return float(len(response))


def prompt(number, text="a"):
    return Prompt(str(number), ({"role": "user", "content": text},))


def drop(lengths, limit):
    prompts = [prompt(i) for i in range(len(lengths))]
    kept = drop_longer(prompts, limit, count_tokens=lambda p: lengths[int(p.id)], source="questions.jsonl")
    return [p.id for p in kept]


@pytest.mark.parametrize(
    ("lengths", "limit", "kept", "line"),
    [
        ([5, 4, 6, 3], 5, ["0", "1", "3"], "dropped 1 of 4 prompts longer than 5 tokens"),
        ([5, 4, 6, 3], 3, ["3"], "dropped 3 of 4 prompts longer than 3 tokens"),
        ([5, 4, 6, 3], 6, ["0", "1", "2", "3"], "dropped 0 of 4 prompts longer than 6 tokens"),
        ([1025] * 1500 + [1024], 1024, ["1500"], "dropped 1,500 of 1,501 prompts longer than 1,024 tokens"),
    ],
)
def test_longer_prompts_are_dropped_and_counted(caplog, lengths, limit, kept, line):
    assert drop(lengths, limit) == kept
    assert caplog.messages == [f"questions.jsonl: {line}"]


def test_none_is_short_enough():
    with pytest.raises(PromptError) as caught:
        drop([9, 7, 8], 6)
    assert str(caught.value) == (
        "prompts.drop_longer: all 3 prompts of questions.jsonl are longer than 6 tokens; the shortest has 7. "
        "Raise it, or leave it out."
    )


def test_progress_counts_prompts():
    seen = []
    drop_longer(
        [prompt(i) for i in range(3)],
        1,
        count_tokens=lambda _: 1,
        source="questions.jsonl",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny") / "policy"
    policy = make_policy()
    policy.model.save_pretrained(directory)
    policy.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def start(model, tmp_path):
    """`start(texts, evaluation=None, store="store", **prompts)`: what `start` gives, and its two files of prompts."""

    def write(name, texts):
        path = tmp_path / name
        records = [{"prompt": text} if isinstance(text, str) else text for text in texts]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        return str(path)

    def run(texts, evaluation=None, *, store="store", **prompts):
        given = {"held_out": 2, "per_iteration": 4, "shards": 1, **prompts, "train": write("train.jsonl", texts)}
        if evaluation is not None:
            given["evaluation"] = write("evaluation.jsonl", evaluation)
        values = {
            "policy": {"model": str(model), "max_prompt_tokens": 6},
            "prompts": given,
            "generation": {"responses": 2, "max_new_tokens": 2},
            "judge": {"name": "verifier", "function": f"{__name__}:score"},
            "training": {"batch_size": 2, "micro_batch_size": 2},
            "resources": {"start": {"cpu": 1}},
        }
        config = RunConfig.model_validate(parse(json.dumps(values)))
        with open_workspace(config, str(tmp_path / store), "start") as work:
            started = stages.start(work)
            return started, *(work.prompts(started.prompts, name) for name in ("train", "evaluation"))

    return run


def test_a_prompt_that_is_too_long_stops_a_run_that_drops_none(start):
    with pytest.raises(PolicyError, match=r"policy\.max_prompt_tokens: 1 of 12 prompts are longer than 6 tokens"):
        start(TEXTS)


def test_the_run_is_that_of_the_short_prompts(start, caplog, tmp_path):
    """As if the longer ones had never been there; and the same again."""
    started, train, held_out = start(TEXTS, drop_longer=LIMIT)
    source = tmp_path / "train.jsonl"
    assert caplog.messages == [f"{source}: dropped 3 of 12 prompts longer than 4 tokens"]
    assert sorted(p.text for p in [*train, *held_out]) == sorted(SHORT)
    assert len(held_out) == 2
    again, without, needless = (
        start(texts, store=store, drop_longer=limit)[0]
        for store, texts, limit in [("again", TEXTS, LIMIT), ("without", SHORT, None), ("needless", SHORT, LIMIT)]
    )
    assert started == again == without == needless
    assert caplog.messages[-1] == f"{source}: dropped 0 of 9 prompts longer than 4 tokens"


def test_the_others_keep_their_ids(start):
    """Also those that tell prompts of one id apart: dropped ones count."""
    records = [{"id": "x", "prompt": text} for text in ("a", "a b c d", "b", "c d e f", "c d")]
    _, train, held_out = start([*records, "g"], drop_longer=LIMIT, per_iteration=2, allow_duplicates=True)
    # printf '%s' '[[["user","g"]],null]' | sha256sum
    expected = {"x": "a", "x-3": "b", "x-5": "c d", "fc88a13e93c2f93f": "g"}
    assert {p.id: p.text for p in [*train, *held_out]} == expected


def test_an_answer_that_is_left_out_does_not_count(start, caplog, tmp_path):
    answer = {"role": "assistant", "content": "a b c d e f g h"}
    talks = [{"prompt": "a b c d e f", "talk": [{"role": "user", "content": text}, answer]} for text in TEXTS]
    _, train, held_out = start(talks, column="talk", drop_longer=LIMIT)
    assert sorted(p.text for p in [*train, *held_out]) == sorted(SHORT)
    source = tmp_path / "train.jsonl"
    assert caplog.messages == [
        f"{source}: left out the assistant's answer at the end of 12 of 12 conversations",
        f"{source}: dropped 3 of 12 prompts longer than 4 tokens",
    ]


def test_evaluation_prompts_are_dropped_too(start, caplog, tmp_path):
    _, train, held_out = start(TEXTS, ["k l m n o", "k l", "l m n", "m", "n o p k"], drop_longer=LIMIT)
    assert [p.text for p in held_out] == ["k l", "l m n"]  # the first two that are short enough
    assert [p.text for p in train] == SHORT
    assert [message for message in caplog.messages if "dropped" in message] == [
        f"{tmp_path / 'train.jsonl'}: dropped 3 of 12 prompts longer than 4 tokens",
        f"{tmp_path / 'evaluation.jsonl'}: dropped 2 of 5 prompts longer than 4 tokens",
    ]


@pytest.mark.parametrize(
    ("evaluation", "prompts", "message"),
    [
        (
            None,
            {"per_iteration": 8},
            "prompts.per_iteration: 8 exceeds the 7 training prompts. Use 7 or fewer, or add prompts. "
            "prompts.drop_longer: 3 of 12 prompts are longer than 4 tokens and dropped; a higher limit keeps more.",
        ),
        (
            None,
            {"held_out": 9, "per_iteration": 2},
            "prompts.held_out: 9 of 9 distinct prompts leaves none to train on. Lower prompts.held_out, add prompts, "
            "or name a file in prompts.evaluation. prompts.drop_longer: 3 of 12 prompts are longer than 4 tokens and "
            "dropped; a higher limit keeps more.",
        ),
        (
            None,
            {"drop_longer": 1},
            "prompts.drop_longer: all 12 prompts of FOLDER/train.jsonl are longer than 1 tokens; the shortest has 2. "
            "Raise it, or leave it out.",
        ),
        (
            ["k l m n", "l m n o p"],
            {},
            "prompts.drop_longer: all 2 prompts of FOLDER/evaluation.jsonl are longer than 4 tokens; the shortest has "
            "5. Raise it, or leave it out.",
        ),
    ],
)
def test_too_few_prompts_are_left(start, tmp_path, evaluation, prompts, message):
    with pytest.raises(PromptError) as caught:
        start(TEXTS, evaluation, **{"drop_longer": LIMIT, **prompts})
    assert str(caught.value) == message.replace("FOLDER", str(tmp_path))


def test_a_number_that_no_limit_allows_stops_before_the_policy_is_loaded(start, caplog):
    with pytest.raises(PromptError) as caught:
        start(TEXTS, drop_longer=LIMIT, per_iteration=11)
    assert str(caught.value).endswith("exceeds the 10 training prompts. Use 10 or fewer, or add prompts.")
    assert not caplog.records
