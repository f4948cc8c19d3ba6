"""Benchmarks by lm-eval: a small task of our own, scored by hand, and what reaches history, table and report."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from components.config.errors import ConfigError, StoreError
from components.config.sections import EvaluationConfig
from components.evaluation import benchmarks
from components.evaluation.benchmarks import BenchmarkError, Score, check, once
from components.run_config import checked
from components.stages.in_process import Pipeline
from components.store import open_store

# Of lm-eval's own code and of what it imports
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval: pip install -r requirements-eval.txt"
)
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
{more}
"""
ANSWERS = """
task: answers
tag: all_answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["w59"], max_gen_toks: 3, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
filter_list:
  - {{name: whole, filter: [{{function: take_first}}]}}
  - {{name: first, filter: [{{function: regex, regex_pattern: "(w[0-9]+)"}}, {{function: take_first}}]}}
"""
NORMED = "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}"
EOS = 1
QUESTIONS = [{"question": f"w{6 + i} w{20 + i}", "choices": ["w7 w8", "w9"], "label": i % 2} for i in range(12)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with `words` with acc and acc_norm, `plain` with acc alone, and `answers`, whose data a test makes.

    It is one for all tests: to look at a folder lm-eval reads the ten thousand files of its own tasks.
    """
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for name, more in [("words", NORMED), ("plain", "")]:
        text = TASK.format(name=name, data=folder / "questions.jsonl", more=more)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "answers.yaml").write_text(ANSWERS.format(data=folder / "answers.jsonl"))
    return folder


@pytest.fixture(scope="module")
def settings(tasks):
    return EvaluationConfig(tasks=["words", "plain"], tasks_path=str(tasks))


def accuracy(policy, *, normed=False, count=12):
    """By plain forward passes: how often the right choice has the higher log-prob, by character if `normed`."""
    hits = []
    for question in QUESTIONS[:count]:
        scores = []
        for choice in question["choices"]:
            prompt, answer = (policy.tokenizer(text)["input_ids"] for text in (question["question"], choice))
            with torch.no_grad():
                logp = policy.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            where = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
            score = logp[where, torch.tensor(answer)].sum().item()
            scores.append(score / len(choice) if normed else score)
        hits.append(int(np.argmax(scores)) == question["label"])
    return float(np.mean(hits))


@pytest.mark.slow
@pytest.mark.thorough
@needs_lm_eval
def test_scores_are_those_of_plain_forward_passes(make_policy, settings):
    policy = make_policy()
    assert benchmarks.run(policy, settings) == [
        Score("words", "acc_norm", accuracy(policy, normed=True)),
        Score("plain", "acc", accuracy(policy)),
    ]


@pytest.mark.slow
@pytest.mark.thorough
@needs_lm_eval
def test_a_metric_and_a_limit(make_policy, tasks):
    policy = make_policy("qwen2")
    settings = EvaluationConfig(tasks=["words:acc"], tasks_path=str(tasks), tasks_limit=5, tasks_batch_size=2)
    assert benchmarks.run(policy, settings) == [Score("words", "acc", accuracy(policy, count=5))]
    unknown = EvaluationConfig(tasks=["words:f1"], tasks_path=str(tasks), tasks_limit=1)
    with pytest.raises(BenchmarkError, match=r"words has no metric 'f1'\. Choose from acc,none, acc_norm,none\."):
        benchmarks.run(policy, unknown)


@pytest.mark.slow
@pytest.mark.thorough
@needs_lm_eval
def test_a_task_that_generates(make_policy, tasks):
    """Every other answer is what the policy says greedily, so that a half is right; no first word alone is."""
    policy = make_policy(eos_ids=(EOS,))
    lines = []
    for i, question in enumerate(QUESTIONS):
        ids = policy.tokenizer(question["question"])["input_ids"]
        for _ in range(3):
            with torch.no_grad():
                ids = [*ids, int(policy.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        said = policy.tokenizer.decode([token for token in ids[2:] if token > 5])
        lines.append({"question": question["question"], "answer": said if i % 2 else f"{said} w6"})
    (tasks / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = EvaluationConfig(tasks=["answers"], tasks_path=str(tasks))
    assert benchmarks.run(policy, settings) == [Score("answers", "exact_match,whole", 0.5)]
    tag = EvaluationConfig(tasks=["all_answers"], tasks_path=str(tasks))
    with pytest.raises(BenchmarkError, match=r"all_answers has no score of its own\. Name its tasks: answers\."):
        benchmarks.run(policy, tag)


def test_the_metric_of_a_task_with_filters():
    results = {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict": 0.2,
            "exact_match_stderr,strict": 0.1,
            "exact_match,loose": 0.3,
        }
    }
    assert benchmarks._score(results, "gsm8k", None) == Score("gsm8k", "exact_match,strict", 0.2)
    assert benchmarks._score(results, "gsm8k", "exact_match") == Score("gsm8k", "exact_match,strict", 0.2)
    assert benchmarks._score(results, "gsm8k", "exact_match,loose") == Score("gsm8k", "exact_match,loose", 0.3)


@pytest.mark.slow
@pytest.mark.thorough
@needs_lm_eval
def test_what_start_refuses(tasks):
    check(EvaluationConfig(tasks=["gsm8k", "words"], tasks_path=str(tasks)))
    with pytest.raises(BenchmarkError, match="lm-eval knows no 'gsm9k'"):
        check(EvaluationConfig(tasks=["gsm8k:exact_match", "gsm9k"]))
    with pytest.raises(BenchmarkError, match=r"evaluation\.tasks_path: nowhere is no directory"):
        check(EvaluationConfig(tasks=["gsm8k"], tasks_path="nowhere"))


def test_lm_eval_is_needed_for_tasks_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check(EvaluationConfig())
    with pytest.raises(BenchmarkError, match=r"lm-eval is not installed\. Run pip install -r requirements-eval\.txt"):
        check(EvaluationConfig(tasks=["gsm8k"]))


def test_a_task_has_one_column():
    with pytest.raises(ConfigError, match=r"evaluation\.tasks: 'gsm8k' is given twice"):
        checked({"demo": {}, "evaluation": {"tasks": ["gsm8k", "gsm8k:exact_match"]}})


@needs_lm_eval
def test_a_policy_is_scored_once(tmp_path, tasks):
    """Another policy, another setting and other questions are scored anew."""
    own = shutil.copytree(tasks, tmp_path / "tasks")
    settings = EvaluationConfig(tasks=["words", "plain"], tasks_path=str(own))
    store, calls = open_store(str(tmp_path / "store")), []

    def score():
        calls.append(1)
        return [Score("words", "acc", len(calls) / 4)]

    manifest = {"model.safetensors": {"sha256": "0" * 64, "size": 1}}
    first = once(store, [manifest, "fp32"], settings, score)
    assert once(store, [manifest, "fp32"], settings, score) == first == [Score("words", "acc", 0.25)]
    assert once(store, [manifest, "bf16"], settings, score)[0].value == 0.5
    assert once(store, [manifest, "fp32"], settings.model_copy(update={"tasks_limit": 3}), score)[0].value == 0.75
    (own / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]))
    assert once(store, [manifest, "fp32"], settings, score)[0].value == 1.0
    for note in list(store.notes()):
        store.write_note(note.name, "")
    with pytest.raises(StoreError, match=r"the note benchmarks-\w+ cannot be read"):
        once(store, [manifest, "fp32"], settings, score)
    assert len(calls) == 4


@pytest.mark.slow
@pytest.mark.thorough
@needs_lm_eval
def test_a_run_scores_every_policy_and_the_reference_once(tmp_path, make_model, make_tokenizer, settings, monkeypatch):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "w{i} w7"}}\n' for i in range(10, 30)))
    config = checked(
        {
            "iterations": 2,
            "policy": {"model": str(tmp_path / "model")},
            "prompts": {"train": str(tmp_path / "prompts.jsonl"), "per_iteration": 8, "held_out": 4, "shards": 1},
            "generation": {"responses": 2, "max_new_tokens": 4},
            "training": {"batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.02},
            "judge": {"name": "verifier", "function": f"{__name__}:length"},
            "evaluation": settings.model_dump(),
            "resources": {kind: {"cpu": 1} for kind in ("start", "generate", "score", "train", "evaluate")},
        }
    )
    scored, run = [], benchmarks.run
    monkeypatch.setattr(benchmarks, "run", lambda policy, _: scored.append(policy) or run(policy, settings))
    pipeline = Pipeline(config, str(tmp_path / "store"))
    history = pipeline.run(pipeline.start())
    first, base, second = scored
    assert history.task_plain.tolist() == [accuracy(first), accuracy(second)]
    assert history.task_plain_reference.tolist() == [accuracy(base)] * 2
    assert history.task_words.tolist() == [accuracy(first, normed=True), accuracy(second, normed=True)]
    assert history.task_words_metric.tolist() == ["acc_norm"] * 2


def length(response, prompt):
    return len(response)
