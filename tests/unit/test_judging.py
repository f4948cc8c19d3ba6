"""`wind judge`: what is measured of a judge on labelled pairs, by hand, and how it is written and refused."""

from __future__ import annotations

import errno
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from components import cli
from components.config.registry import build
from components.judges import Judge
from components.judging import __main__ as command
from components.judging import report
from components.judging.__main__ import judge_of
from components.judging.measures import ask, measure
from components.judging.pairs import read_pairs
from components.judging.report import figure, text, values
from support.loopback_server import said, serving

DOCS = Path(__file__).parents[2] / "docs"
SMOKE = Path(__file__).parents[2] / "flows" / "configs" / "smoke.yaml"
LENGTH = {"name": "verifier", "function": f"{__name__}:length"}
# The longer is chosen, the shorter, neither, the longer, the shorter
PAIRS = [("aaaa", "bb"), ("a", "bbb"), ("abc", "abd"), ("aaaaa", "b"), ("x", "yy")]


def length(response, prompt):
    return len(response)


def written(path: Path, pairs=PAIRS) -> Path:
    records = [
        {"prompt": f"p{i}", "chosen": chosen, "rejected": rejected} for i, (chosen, rejected) in enumerate(pairs)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.fixture
def pairs(tmp_path):
    """`pairs(some=PAIRS)`: read from a file."""
    return lambda some=PAIRS: read_pairs(written(tmp_path / "pairs.jsonl", some))


def rates_of(settings, pairs):
    return measure(ask(build("judges", settings, Judge), pairs))


def test_a_judge_of_length_by_hand(pairs):
    rates = rates_of(LENGTH, pairs())
    found = {name: (one.value, one.count) for name, one in rates.items()}
    assert found == {
        "agreement": ((1 + 0 + 0.5 + 1 + 0) / 5, 5),
        "agreement_longer_chosen": (1.0, 2),
        "agreement_shorter_chosen": (0.0, 2),
        "ties": (1 / 5, 5),
        "prefers_longer": (1.0, 4),
        "labels_prefer_longer": (2 / 4, 4),
    }


def test_the_interval_of_an_agreement_by_hand(pairs):
    """40 pairs and two more, a 0 and a 1: 17 wins, 17 losses and 8 ties, whose variance is 34/4 / 41."""
    rates = rates_of(LENGTH, pairs(PAIRS * 8))
    half = 2.0195 * math.sqrt(8.5 / 41 / 42) + 0.5 / 42  # Student's t of 41 degrees, from a table
    assert rates["agreement"].value == 0.5
    assert [rates["agreement"].low, rates["agreement"].high] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-4)


def test_a_preference_for_the_shorter_one(pairs):
    rates = rates_of({**LENGTH, "function": f"{__name__}:shortness"}, pairs())
    assert rates["prefers_longer"].value == 0.0
    assert rates["agreement_shorter_chosen"].value == 1.0


def shortness(response, prompt):
    return -len(response)


def test_thinking_that_is_cut_has_no_length(pairs):
    rates = rates_of({**LENGTH, "cut_thinking": True}, pairs([("<think>long thoughts</think>a", "bb")]))
    assert (rates["labels_prefer_longer"].value, rates["agreement"].value) == (0.0, 0.0)


def test_pairs_of_one_length_say_nothing_about_length(pairs):
    rates = rates_of(LENGTH, pairs([("a", "b")]))
    assert math.isnan(rates["prefers_longer"].value)
    assert rates["prefers_longer"].count == 0
    assert (rates["agreement"].low, rates["agreement"].high) == (0.0, 1.0)


@pytest.fixture
def llm_judge(tmp_path, make_model, make_tokenizer):
    """Settings of a tiny language model as a judge, and its P(w58) / (P(w58) + P(w59)) by its own forward."""
    model, folder = make_model(), tmp_path / "model"
    model.save_pretrained(folder)
    make_tokenizer("{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %}").save_pretrained(folder)
    ask = {"prompt": "{prompt} w50 {response_a} w51 {response_b}", "verdicts": ["w58", "w59"], "min_verdict_mass": 0.0}

    @torch.no_grad()
    def shown_first_wins(prompt, first, second):
        words = [*prompt.split(), "w50", *first.split(), "w51", *second.split()]
        ids = torch.tensor([[0, *(int(word[1:]) for word in words)]])
        a, b = model(ids).logits[0, -1, [58, 59]].double().exp().tolist()
        return a / (a + b)

    return {"name": "llm_judge", "model": str(folder), "precision": "fp32", **ask}, shown_first_wins


def test_a_language_model_in_both_orders(llm_judge, tmp_path):
    settings, shown_first_wins = llm_judge
    words = np.random.default_rng(0).integers(6, 50, (12, 4))
    records = [{"prompt": f"w{p}", "chosen": f"w{a}", "rejected": f"w{b} w{c}"} for p, a, b, c in words]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, records)))
    orders = [
        [
            shown_first_wins(r["prompt"], *shown)
            for shown in ((r["chosen"], r["rejected"]), (r["rejected"], r["chosen"]))
        ]
        for r in records
    ]
    verdicts = ask(build("judges", settings, Judge), read_pairs(tmp_path / "pairs.jsonl"))
    rates = measure(verdicts)
    np.testing.assert_allclose(verdicts.orders, orders, atol=1e-5)
    same = [(there > 0.5) != (back > 0.5) for there, back in orders]
    assert 0 < sum(same) < 12
    assert rates["consistency"].value == pytest.approx(sum(same) / 12)
    first = [(there > 0.5) + (back > 0.5) for there, back in orders]
    assert rates["prefers_first_shown"].value == pytest.approx(sum(first) / 24)
    agreed = [(there + 1 - back) / 2 > 0.5 for there, back in orders]
    assert rates["agreement"].value == pytest.approx(sum(agreed) / 12)
    assert rates["prefers_longer"].value == pytest.approx(1 - sum(agreed) / 12)
    assert rates["labels_prefer_longer"].value == 0.0


def test_pairs_that_read_the_same_say_nothing_about_order(llm_judge, pairs):
    same = ("<think>w7</think>w8", "<think>w9</think>w8")
    rates = rates_of({**llm_judge[0], "cut_thinking": True}, pairs([same, ("w10", "w11")]))
    assert (rates["consistency"].count, rates["prefers_first_shown"].count) == (1, 1)
    assert (rates["agreement"].count, rates["ties"].count) == (2, 2)


def test_answers_that_are_no_verdicts_and_money(pairs, monkeypatch):
    """Of 10 questions the 2 about abc and abd get no verdict; all others say A, which is a tie in both orders."""
    pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    settings = {"name": "openai", "model": "m", "price_in": 1000.0, "price_out": 0.0, "retries": 0}
    with serving(lambda body, _: said("Both" if "abd" in body["messages"][0]["content"] else "A")) as server:
        judge = build("judges", {**settings, "base_url": f"{server.address}/v1"}, Judge)
        verdicts = ask(judge, pairs())
    rates = measure(verdicts)
    assert rates["unparsed"].value == 2 / 10
    assert rates["consistency"].value == 1 / 5  # two ties agree
    assert rates["prefers_first_shown"].value == (4 * 1.0 + 0.5) / 5
    assert rates["ties"].value == 1.0
    told = values(judge, verdicts, rates)
    assert told["cost_per_pair"] == pytest.approx(10 * 11 * 1000 / 1e6 / 5)  # 11 tokens a question
    assert "cost 0.022 a pair and 0.11 for all" in text(judge, verdicts, rates)
    assert len(figure(judge, verdicts, rates).axes[0].get_yticks()) == len(rates)


@pytest.fixture
def given(tmp_path):
    """The command's words: a judge, pairs, and a directory that is not there yet."""
    (tmp_path / "judge.yaml").write_text(json.dumps({"judge": LENGTH}))
    return [str(tmp_path / "judge.yaml"), str(written(tmp_path / "pairs.jsonl")), str(tmp_path / "out")]


def test_the_command_writes_text_json_and_a_picture(given, tmp_path, capsys):
    cli.main(["judge", *given])
    said_ = capsys.readouterr().out
    assert f"verifier {__name__}:length, 5 pairs" in said_
    rows = {line.split("  ")[0]: line.split()[-3:] for line in said_.splitlines() if "%" in line}
    assert rows["agrees with the labels"] == ["50.0%", "0.0-100.0%", "5"]
    assert rows["… where the shorter is chosen"][0::2] == ["0.0%", "2"]
    told = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert told["pairs"] == 5
    assert told["rates"]["agreement"] == {"value": 0.5, "low": 0.0, "high": 1.0, "count": 5}
    assert told["cost_per_pair"] is None
    assert told["judge"]["function"] == LENGTH["function"]
    assert (tmp_path / "out" / "judge.png").read_bytes().startswith(b"\x89PNG")


def test_a_runs_config_has_a_judge():
    assert judge_of(SMOKE).name == "verifier"


def test_the_documents_configs_can_be_used(tmp_path):
    found = re.findall(r"```yaml\n(.+?)```", (DOCS / "judges-over-http.md").read_text(), re.DOTALL)
    for snippet in found:
        (tmp_path / "judge.yaml").write_text(snippet)
        assert judge_of(tmp_path / "judge.yaml").name in ("openai", "http")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("config", "pairs", "message"),
    [
        ("judge: {name: nobody}", "{}", "judge: there is no 'nobody'. Use one of: "),
        ("judge: {name: http}", "{}", "judge.url: is required."),
        ("judge: {name: verifier, function: 'math:sqrt'}\nseed: 1", "{}", "prompts"),
        ("judge: {name: verifier, function: 'math:sqrt'}", "", "is empty. Write"),
        (
            "judge: {name: verifier, function: 'nowhere.py:f'}",
            '{"prompt": "p", "chosen": "a", "rejected": "b"}',
            "judge.function: there is no file",
        ),
    ],
)
def test_what_ends_the_command(tmp_path, config, pairs, message):
    (tmp_path / "c.yaml").write_text(config)
    (tmp_path / "p.jsonl").write_text(pairs)
    with pytest.raises(SystemExit) as raised:
        cli.main(["judge", str(tmp_path / "c.yaml"), str(tmp_path / "p.jsonl"), str(tmp_path / "out")])
    assert str(raised.value).startswith("error: ")
    assert message in str(raised.value)


def test_a_file_that_is_not_there_and_a_directory_that_cannot_be(given, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*nothing\.jsonl: cannot be read"):
        cli.main(["judge", given[0], str(tmp_path / "nothing.jsonl")])
    with pytest.raises(SystemExit, match=r"error: \S+judge\.yaml: cannot be written"):
        cli.main(["judge", *given[:2], given[0]])


@pytest.mark.parametrize("name", ["judge.json", "judge.png"])
def test_a_directory_in_a_files_place_is_named_before_anything_is_asked(given, tmp_path, monkeypatch, name):
    monkeypatch.setattr(command, "ask", None)
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(SystemExit, match=rf"error: \S+{name}: is there already and is no file\. Remove it, or name"):
        cli.main(["judge", *given])
    with pytest.raises(SystemExit, match=r"error: /proc/judge\.json: cannot be written \("):
        cli.main(["judge", *given[:2], "/proc"])


def test_a_table_outlasts_files_that_cannot_be_written(given, monkeypatch, capsys):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write", full)
    with pytest.raises(SystemExit, match=r"out: cannot be written \(No space left on device\)"):
        cli.main(["judge", *given])
    assert "agrees with the labels" in capsys.readouterr().out
