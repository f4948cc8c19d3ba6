"""What `start` keeps of the prompts: the judge sees the same there and in later steps."""

from __future__ import annotations

import datetime
import decimal
import json
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from components import stages
from components.config.errors import PromptError
from components.prompts import save
from components.run_config import RunConfig, parse
from components.stages import preparation
from components.stages.context import open_workspace
from support.models.tiny import make_policy

SEEN: list[tuple[str, str]] = []  # id and metadata of each prompt that the judge was given


def score(response, prompt):
    """A judge that notes what it sees."""
    SEEN.append((prompt.id, repr((prompt.messages, prompt.answer, prompt.metadata))))
    return float(len(response))


@pytest.fixture
def work(tmp_path):
    """`work(source, **prompts)`: the scratch of a step for a tiny policy and these prompts."""
    policy = make_policy()
    policy.model.save_pretrained(tmp_path / "policy")
    policy.tokenizer.save_pretrained(tmp_path / "policy")

    def opened(source, **prompts):
        values = {
            "policy": {"model": str(tmp_path / "policy")},
            "prompts": {"train": source, "held_out": 2, "per_iteration": 2, "shards": 1, **prompts},
            "generation": {"responses": 2, "max_new_tokens": 2},
            "judge": {"name": "verifier", "function": f"{__name__}:score"},
            "training": {"batch_size": 2, "micro_batch_size": 2},
            "resources": {"start": {"cpu": 1}},
        }
        config = RunConfig.model_validate(parse(json.dumps(values)))
        return open_workspace(config, str(tmp_path / "store"), "start")

    return opened


def test_the_judge_sees_in_start_what_later_steps_read(tmp_path, work):
    pyarrow.parquet.write_table(
        pa.table(
            {
                "prompt": pa.array(list("abcd")),
                "answer": pa.array([1.0, None, 3.0, 4.0]),
                "made": pa.array([datetime.date(2025, 1, day) for day in (1, 2, 3, 4)]),
                "price": pa.array([decimal.Decimal(f"{n}.50") for n in range(4)]),
            }
        ),
        tmp_path / "p.parquet",
    )
    SEEN.clear()
    with work(str(tmp_path / "p.parquet")) as opened:
        started = stages.start(opened)
        held_out = opened.prompts(started.prompts, "evaluation")
        later = {prompt.id: repr((prompt.messages, prompt.answer, prompt.metadata)) for prompt in held_out}
    assert len(later) == 2
    seen = [pair for pair in SEEN if pair[0] in later]  # without the judge's check of itself
    assert {prompt for prompt, _ in seen} == later.keys()
    assert all(value == later[prompt] for prompt, value in seen)
    expected = {  # written by hand: text is a, b, c, d in the order of the table
        "a": ("1", {"made": "2025-01-01", "price": "0.50"}),
        "b": (None, {"made": "2025-01-02", "price": "1.50"}),
        "c": ("3", {"made": "2025-01-03", "price": "2.50"}),
        "d": ("4", {"made": "2025-01-04", "price": "3.50"}),
    }
    assert all((prompt.answer, prompt.metadata) == expected[prompt.text] for prompt in held_out)


def test_the_judge_sees_in_start_what_is_in_the_file(tmp_path, work, monkeypatch):
    """Whatever way the file may differ from what was read."""

    def save_marked(prompts, path):
        save([replace(prompt, metadata={"kept": True}) for prompt in prompts], path)

    monkeypatch.setattr(preparation.prompts, "save", save_marked)
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "{text}"}}\n' for text in "abcd"))
    SEEN.clear()
    with work(str(tmp_path / "p.jsonl")) as opened:
        held_out = opened.prompts(stages.start(opened).prompts, "evaluation")
    seen = [value for prompt, value in SEEN if prompt in {p.id for p in held_out}]
    assert len(seen) == 2 * 2  # two responses to each of two prompts
    assert all("'kept': True" in value for value in seen)


def test_start_trains_on_one_split_and_evaluates_on_another(tmp_path, work, monkeypatch):
    """Of one subset, as in openai/gsm8k."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    for subset, words in [("main", "abcdefgh"), ("socratic", "ijklmnop")]:
        for split, part in [("train", words[:5]), ("test", words[5:])]:
            (folder / subset).mkdir(parents=True, exist_ok=True)
            pd.DataFrame({"question": list(part), "answer": [1, *[None] * (len(part) - 1)]}).to_parquet(
                folder / subset / f"{split}-00000-of-00001.parquet"
            )
    configs = "".join(
        f"- config_name: {subset}\n  data_files:\n  - {{split: train, path: {subset}/train-*}}\n"
        f"  - {{split: test, path: {subset}/test-*}}\n"
        for subset in ("main", "socratic")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    options = {"column": "question", "subset": "socratic"}
    with work(str(folder), **options, evaluation_split="test") as opened:
        started = stages.start(opened)
        train, held_out = (opened.prompts(started.prompts, name) for name in ("train", "evaluation"))
    assert [(prompt.text, prompt.answer) for prompt in train] == [("i", "1"), *((text, None) for text in "jklm")]
    assert [(prompt.text, prompt.answer) for prompt in held_out] == [("n", "1"), ("o", None)]  # held_out: 2
    with work(str(folder), **options, evaluation_split="tset") as opened, pytest.raises(PromptError) as caught:
        stages.start(opened)
    assert "split 'tset' of this dataset cannot be loaded" in str(caught.value)
    assert "Correct its name or prompts.evaluation_split;" in str(caught.value)
    refused = pytest.raises(PromptError, match=r"Set prompts\.subset to one of: main, socratic\.")
    with work(str(folder), column="question", evaluation_split="test") as opened, refused:
        stages.start(opened)


def test_start_refuses_what_it_could_not_keep(tmp_path, work):
    pyarrow.parquet.write_table(
        pa.table({"prompt": list("abcd"), "raw": [b"1", b"2", b"3", b"4"]}), tmp_path / "p.parquet"
    )
    with work(str(tmp_path / "p.parquet")) as opened, pytest.raises(PromptError, match="row 1: raw: is of type bytes"):
        stages.start(opened)
    with work(str(tmp_path / "p.parquet"), leave_out=["raw"]) as opened:
        assert stages.start(opened).prompts.keys() == {"train.jsonl", "evaluation.jsonl"}
