"""The example of a real model: its prompts, its judge on texts by hand, and its config end to end with a tiny model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from components.config.strict_yaml import load_yaml
from components.data.records import Prompt
from components.run_config import RunConfig, parse
from components.stages.in_process import Pipeline
from support.models.families import FAMILIES, save_policy

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2"


def module(name):
    spec = importlib.util.spec_from_file_location(f"smollm2_{name}", EXAMPLE / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


judge, make_prompts = module("judge"), module("make_prompts")


def rows(name):
    return [json.loads(line) for line in (EXAMPLE / f"{name}.jsonl").read_text("utf-8").splitlines()]


# Prompts


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_the_files_are_what_the_script_writes(name):
    assert rows({"training": "train"}.get(name, name)) == list(getattr(make_prompts, name)())


def test_topics_and_two_kinds_are_held_out():
    train, held_out = rows("train"), rows("evaluation")
    assert not {row["topic"] for row in train} & {row["topic"] for row in held_out}
    assert len({row["kind"] for row in train}) == 12
    assert {row["kind"] for row in held_out} - {row["kind"] for row in train} == {"hashtag", "two_sentences"}
    assert len(held_out) * 2 >= 400


def test_every_kind_has_a_check_and_says_what_it_wants():
    assert set(make_prompts.CONSTRAINTS) == {*judge.CHECKS, "ending"}
    assert all(row["wanted"] in row["prompt"] for row in rows("train") + rows("evaluation"))


# The judge

KEPT_AND_BROKEN = {
    "lower_case": ("all of it is small.", "Not all of it is."),
    "capitals": ("ALL 3 OF THEM ARE.", "ALL but one IS."),
    "no_commas": ("One and two and three.", "One, two and three."),
    "quoted": ('"Here I am."', '"Here" I am "not".x'),
    "bullets": ("* one\n* two\n- three", "* one\n* two\n* three\n* four"),
    "short": ("word " * 25, "word " * 26),
    "title": ("<<On bees>>\nThey hum.", "<On bees> They hum all day."),
    "postscript": ("They hum.\nP.S. They sting.", "They hum. P.S. is what I never write."),
    "without_the": ("Bees hum, other insects bathe.", "Bees hum the song."),
    "question": ("Who knows what they hum?", "Who knows? I do not."),
    "json": ('{"answer": "They hum all day."}', '{"answer": "They hum.", "more": "All day."}'),
    "hashtag": ("They hum all day. #bees", "#bees hum all day."),
    "two_sentences": ("They hum. They sting!", "They hum. They sting! They fly."),
}


@pytest.mark.parametrize("kind", KEPT_AND_BROKEN)
def test_checks_by_hand(kind):
    kept, broken = KEPT_AND_BROKEN[kind]
    assert judge.constraint_met(kept, kind)
    assert not judge.constraint_met(broken, kind)


def test_the_ending_is_the_prompts():
    assert judge.constraint_met("They hum. I hope this helps.", "ending", "I hope this helps.")
    assert not judge.constraint_met("They hum. I hope this helps", "ending", "I hope this helps.")


@pytest.mark.parametrize("kind", [*judge.CHECKS])
def test_too_few_words_keep_nothing(kind):
    assert not judge.constraint_met("oh no", kind)
    assert not judge.constraint_met("", kind)


def test_score_by_hand():
    """Three of four words differ: 0.75, of which 0.7 counts. One of four: 0.25."""
    prompt = Prompt("p", (), metadata={"kind": "no_commas", "wanted": ""})
    assert judge.score("bees hum and bees", prompt) == {"score": 1.14, "constraint_met": True, "variety": 0.7}
    assert judge.score("bees bees bees, bees", prompt) == {"score": 0.05, "constraint_met": False, "variety": 0.25}
    assert judge.score("", prompt) == {"score": 0.0, "constraint_met": False, "variety": 0.0}


# The config


@pytest.mark.thorough
def test_the_config_runs_end_to_end(tmp_path, monkeypatch):
    """With a tiny model and tiny numbers; the history has the shares of each kind."""
    monkeypatch.chdir(EXAMPLE.parents[1])
    text = (EXAMPLE / "config.yaml").read_text("utf-8")
    assert parse(text)["evaluation"]["group_by"] == "kind"
    values = load_yaml(text)
    values["policy"]["model"] = str(save_policy(FAMILIES["qwen2.5"], tmp_path / "policy"))
    values["prompts"] |= {"per_iteration": 8, "held_out": 14}
    values["generation"] |= {"responses": 2, "max_new_tokens": 6}
    values["iterations"] = 1
    config = RunConfig.model_validate(values)
    pipeline = Pipeline(config, str(tmp_path / "store"))
    history = pipeline.run(pipeline.start())
    assert {"part_constraint_met", "part_constraint_met[json]", "part_variety_reference"} <= set(history.columns)
