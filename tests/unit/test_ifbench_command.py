"""`wind benchmark ifbench`: a policy's answers, whole commands, what they print and what they refuse."""

from __future__ import annotations

import errno
import json

import pytest
import torch

from components import cli
from components.benchmarking import __main__ as command
from components.benchmarking import ifbench, report
from components.benchmarking.answers import Answer, Answering, answer
from components.benchmarking.ifbench import Checked, IFBench
from components.benchmarking.report import Result, text, values, write
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.evaluation.benchmarks import BenchmarkError
from components.generation.transformers import TransformersEngine
from support.benchmarks import BROKEN, KEPT, needs_ifbench, task
from support.models.words import make_model, word_tokenizer

TEMPLATE = "{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %} w7"


@pytest.fixture
def save(make_tokenizer, tmp_path):
    """`save(name, seed)`: the directory of a tiny policy that reads long prompts of unknown words."""

    def saved(name, seed=0, **changes):
        folder = tmp_path / name
        make_model(seed=seed, **{"max_position_embeddings": 4096, **changes}).save_pretrained(folder)
        make_tokenizer(TEMPLATE).save_pretrained(folder)
        return folder

    return saved


def words(*texts):
    prompts = [Prompt(str(i), ({"role": "user", "content": text},)) for i, text in enumerate(texts)]
    return prompts, Answering(TransformersEngine(batch_size=2), 6)


def test_answers_are_the_likeliest_tokens(save):
    folder = save("policy")
    prompts, settings = words("w8 w9", "w10", "w11 w12 w13")
    found = answer(PolicyConfig(model=str(folder)), prompts, settings)
    model = make_model(max_position_embeddings=4096)
    for prompt, one in zip(prompts, found, strict=True):
        ids = torch.tensor([[0, *(int(word[1:]) for word in prompt.text.split()), 7]])
        drawn = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :].tolist()
        finished = drawn[-1] == 1
        assert one.text.split() == [f"w{token}" for token in drawn if token > 5]
        assert (one.tokens, one.finished) == (len(drawn), finished)


def test_thinking_is_no_part_of_an_answer(tmp_path):
    """The template opens it, and a response that never closes it is all thinking."""
    vocabulary = ["<s>", "</s>", "<pad>", "<unk>", "<think>", "</think>", *(f"w{i}" for i in range(6, 60))]
    make_model(eos_token_id=1).save_pretrained(tmp_path)
    word_tokenizer(vocabulary, "{{ bos_token }} {{ messages[0]['content'] }} <think>").save_pretrained(tmp_path)
    prompts, settings = words(*(f"w{i}" for i in range(8, 20)))
    config = PolicyConfig(model=str(tmp_path))
    whole = answer(config, prompts, settings)
    cut = answer(config, prompts, Answering(settings.engine, 6, cut_thinking=True))
    assert all(one.text for one in whole)
    for before, after in zip(whole, cut, strict=True):
        assert after.text == before.text.partition("</think>")[2].lstrip()
        assert after.tokens == before.tokens


def test_prompts_that_are_too_long(save):
    prompts, settings = words("w8 w9 w10")
    with pytest.raises(BenchmarkError, match=r"--max-new-tokens: 6 tokens after the longest prompt .* Use 3 or fewer"):
        answer(PolicyConfig(model=str(save("short", max_position_embeddings=8))), prompts, settings)


def run(*words):
    cli.main(["benchmark", "ifbench", *map(str, words)])


@needs_ifbench
def test_two_policies_beside_each_other(save, tmp_path, capsys):
    before, after, out = save("before"), save("after", seed=1), tmp_path / "made" / "both.json"
    engine = "{name: transformers, batch_size: 5}"
    run(before, after, "--limit", 12, "--max-new-tokens", 8, "--out", out, "--engine", engine)
    shown = capsys.readouterr().out
    told = json.loads(out.read_text("utf-8"))
    assert [one["model"] for one in told["policies"]] == [str(before), str(after)]
    assert f"before: {before}\nafter: {after}\n" in shown
    assert f"{told['prompts']} prompts with " in shown
    for side, policy in zip(("before", "after"), told["policies"], strict=True):
        rows = policy["responses"]
        assert len(rows) == told["prompts"]
        kept = [all(one["strict"] for one in row["instructions"]) for row in rows]
        assert policy["accuracy"]["strict_prompts"]["mean"] == pytest.approx(sum(kept) / len(kept)), side
        assert policy["truncated"] == pytest.approx(sum(not row["finished"] for row in rows) / len(rows))
        assert policy["length"] == pytest.approx(sum(row["tokens"] for row in rows) / len(rows))
    assert told["policies"][0]["responses"] != told["policies"][1]["responses"]
    first, second = (policy["accuracy"]["loose_instructions"]["mean"] for policy in told["policies"])
    assert told["difference"]["loose_instructions"]["mean"] == pytest.approx(second - first)
    assert told["settings"] == {
        "engine": {"name": "transformers", "batch_size": 5},
        "max_new_tokens": 8,
        "cut_thinking": False,
    }


@needs_ifbench
def test_one_policy_twice_gives_the_same_file(save, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = save("policy")
    found = []
    for _ in range(2):
        run(folder, "--limit", 5, "--max-new-tokens", 4)
        found.append((tmp_path / "ifbench.json").read_bytes())
    assert found[0] == found[1]
    assert "difference" not in json.loads(found[0])
    assert "\nstrict, prompts " in capsys.readouterr().out


def test_the_table_by_hand():
    benchmark = IFBench((task("a"), task("b")), 5, "26.3", {"format:title_case": 3})
    answers = [Answer("x", 4, True), Answer("y", 8, False)]
    results = [
        Result("old", answers, [BROKEN, BROKEN]),
        Result("new", answers, [KEPT, Checked((False,), (True,), ("b",))]),
    ]
    settings = Answering(TransformersEngine(), 1000)
    shown = text(benchmark, results, settings)
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert "0.0% (0.0 to " in lines["strict, prompts"]
    assert " 50.0% (" in lines["strict, prompts"]
    assert " +50.0 (" in lines["strict, prompts"]
    assert " +100.0 (" in lines["loose, instructions"]
    assert lines["cut off by the limit"].split()[-2:] == ["50.0%", "50.0%"]
    assert lines["mean length, tokens"].split()[-2:] == ["6", "6"]
    assert "3 of 5 prompts are left out" in shown
    assert "format:title_case (3). For all prompts, run python -m nltk.downloader" in shown
    assert "Checkers failed on answers, which count as not kept: b (1)." in shown
    told = values(benchmark, results, settings)
    assert json.loads(json.dumps(told, allow_nan=False))["policies"][1]["failed"] == {"b": 1}
    assert told["left_out"] == {"prompts": 3, "instructions": {"format:title_case": 3}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere/model", "--out", "."], r"--out: \. is a directory. Name the JSON file"),
        (["model", "--engine", "onnx"], r"error: engine: there is no 'onnx'. Use one of: transformers, vllm"),
        (
            ["model", "--engine", "{name: vllm, batch: 4}"],
            r"error: engine\.batch: unknown key. Did you mean 'batch_size'",
        ),
        (["model", "--engine", "[vllm]"], r"error: engine: \['vllm'\] cannot be used"),
        (["model", "--engine", "{name: vllm"], r"error: "),
        (["model", "--prompt-format", "Q:"], r"prompt_format: 'Q:' lacks '\{prompt\}'"),
        (["model", "--limit", "0"], r"2"),
        (["model", "--max-new-tokens", "many"], r"2"),
    ],
)
def test_what_is_refused(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said):
        run(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["policy: {model: mine}\n", "", '{"benchmark": "mine"}'])
def test_a_file_of_something_else_is_left_as_it_is(content, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(content)
    with pytest.raises(SystemExit, match=r"mine\.yaml is there already and holds no answers of a benchmark\. Name"):
        run("nowhere/model", "--out", mine)
    assert mine.read_text() == content


def test_a_place_where_no_file_can_be_made():
    """Root may write to /proc by its permissions, and no file can be made there."""
    with pytest.raises(SystemExit, match=r"error: /proc/x\.json: cannot be written \("):
        run("nowhere/model", "--out", "/proc/x.json")


@pytest.fixture
def answered(monkeypatch, tmp_path):
    """The command after a policy has answered two prompts; a file of its own that it would replace."""
    benchmark = IFBench((task("a"), task("b")), 2, "26.3", {})
    result = Result("old", [Answer("x", 4, True), Answer("y", 8, False)], [KEPT, BROKEN])
    monkeypatch.setattr(ifbench, "load", lambda limit: benchmark)
    monkeypatch.setattr(command, "_result", lambda *given: result)
    out = tmp_path / "out.json"
    write(out, values(benchmark, [result, result], Answering(TransformersEngine(), 1000)))
    return out


def test_a_table_outlasts_a_file_that_cannot_be_written(answered, monkeypatch, capsys):
    def full(path, told):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write", full)
    with pytest.raises(SystemExit, match=r"out\.json: cannot be written \(No space left on device\)"):
        run("model", "--out", answered)
    assert "\nstrict, prompts " in capsys.readouterr().out


def test_a_file_outlasts_a_terminal_that_is_gone(answered, monkeypatch):
    def gone(text):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(command, "visible", gone)
    with pytest.raises(OSError, match="Input/output error"):
        run("model", "--out", answered)
    assert len(json.loads(answered.read_text("utf-8"))["policies"]) == 1


@needs_ifbench
def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"error: policy\.model: there is no file gone\.gguf"):
        run("gone.gguf", "--limit", 1)
    assert list(tmp_path.iterdir()) == []
