"""What `wind plan` refuses: options that would count for nothing, and numbers that no run has."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import re
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.bandit.config import LabConfig
from components.plan.__main__ import main
from components.plan.demands import LABORATORY, LABORATORY_ALONE
from components.run_config import RunConfig
from support.plans import HISTORY, SMALL, config

SIZE = ["--parameters", "1e9"]


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """`refused(words, **sections)`: what the command says as it fails, where history.csv lies."""
    monkeypatch.chdir(tmp_path)
    HISTORY.to_csv("history.csv")

    def run(*words, size=SIZE, **sections):
        values = config(**sections).model_dump()
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(SystemExit) as caught:
            main(["run.yaml", *size, *words])
        assert isinstance(caught.value.code, str)
        return caught.value.code

    return run


JBOND, NODES = {"name": "jbond"}, {"nodes": 2}
FROM = ("--history", "history.csv")


@pytest.mark.parametrize(
    ("words", "sections", "message"),
    [
        (("--interruptions", "0.2"), {}, "--interruptions: are of spot machines"),
        (("--history-shards", "2"), {}, "--history-shards: is how the run of --history was split"),
        (("--network", "10"), {}, "--network: is between machines, and training.nodes is 1"),
        ((*FROM, "--network", "10"), {"training": NODES}, "--network: the times of --history have the waiting"),
        (("--spot-price", "1"), {}, "--spot-price: is for generate and score. Give the price of the others"),
        (("--spot-price", "1", "--price", "2"), {"algorithm": JBOND}, "--spot-price: .* this run draws in training"),
        ((*FROM, "--history-shards", "2"), {"algorithm": JBOND}, "--history-shards: jbond draws in training"),
        ((*FROM, "--history-shards", "51"), {}, "--history-shards: 51 is more than the 50 prompts of an iteration"),
        (("--response-tokens", "31"), {}, "--response-tokens: 31 is more than generation.max_new_tokens, 30, allows"),
        (("--prompt-tokens", "513"), {}, "--prompt-tokens: 513 is more than policy.max_prompt_tokens, 512, allows"),
        (("--prompt-tokens", "9"), {"prompts": {"drop_longer": 8}}, "more than prompts.drop_longer, 8, allows"),
        (("--parameters", "nowhere=2e9"), {}, "--parameters: the size of nowhere is given twice"),
        ((), {"prompts": {"per_iteration": 10**400}}, "prompts.per_iteration: .* does not fit into 64 bits"),
        ((), {"generation": {"max_new_tokens": 10**400}}, "generation.max_new_tokens: .* does not fit into 64 bits"),
    ],
)
def test_options_and_counts_that_make_no_plan(refused, words, sections, message):
    assert re.match(f"error: .*{message}", refused(*words, **sections))


@pytest.mark.parametrize("size", ["8", "8.5", "196607", "nowhere=70"])
def test_no_model_is_that_small(refused, size):
    """A layer of 128 numbers a token has 12 x 128 x 128 parameters."""
    assert "one of a single layer has 196,608" in refused(size=["--parameters", size])


def test_a_count_of_many_digits_is_no_option(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(SMALL)
    for digits in ("9" * 400, "9" * 5000):
        with pytest.raises(SystemExit):
            main([str(tmp_path / "run.yaml"), *SIZE, "--history-shards", digits])
        assert f"'{'9' * 80}…' is no whole number from 1" in capsys.readouterr().err


def archive(text):
    """The text in every form that a name may promise."""
    packed, taped = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("history.csv", text)
    with tarfile.open(fileobj=taped, mode="w") as tape:
        member = tarfile.TarInfo("history.csv")
        member.size = len(text)
        tape.addfile(member, io.BytesIO(text))
    found = {"gz": gzip.compress(text), "bz2": bz2.compress(text), "xz": lzma.compress(text)}
    return {**found, "zip": packed.getvalue(), "tar": taped.getvalue(), "zst": b"\x28\xb5\x2f\xfd" + text}


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip", "tar", "zst"])
def test_a_compressed_history_is_refused_and_a_name_means_nothing(refused, tmp_path, capsys, ending):
    text = HISTORY.to_csv().encode()
    path = tmp_path / f"history.csv.{ending}"
    path.write_bytes(archive(text)[ending])
    said = refused("--history", path.name, "--history-shards", "2")
    assert said.startswith(f"error: --history {path.name}: ")
    path.write_bytes(text)
    main(["run.yaml", *SIZE, "--history", path.name, "--history-shards", "2"])
    assert "those of --history" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rate", "remedy"), [("1e6", "Raise prompts.shards"), ("1e9", "No number of shards changes that")]
)
def test_interruptions_after_which_nothing_ends(refused, rate, remedy):
    said = refused("--price", "2", "--spot-price", "1", "--interruptions", rate)
    assert said.startswith("error: --interruptions: a task of generate takes ")
    assert f"with {float(rate):g} an hour hardly one ends. {remedy}" in said


def test_no_figure_has_hundreds_of_digits(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(training={"nodes": 2}).model_dump()))
    main([str(tmp_path / "run.yaml"), *SIZE, "--network", "1e-9", "--price", "1e15"])
    text = capsys.readouterr().out
    assert max(map(len, text.split())) < 80
    assert "inf " not in text


@pytest.mark.parametrize("name", ["laboratory", "rock_paper_scissors", "smoke"])
def test_a_config_of_the_laboratory_needs_no_plan(name):
    path = Path(__file__).parents[2] / "flows" / "configs" / "bandit" / f"{name}.yaml"
    with pytest.raises(SystemExit, match=r"^error: \w+: is of a config of flows/bandit_flow\.py, .* needs no plan"):
        main([str(path)])


def test_what_is_partly_a_run_is_checked_as_one(tmp_path):
    assert set(LabConfig.model_fields) == LABORATORY
    assert set(RunConfig.model_fields) & LABORATORY_ALONE == set()
    (tmp_path / "run.yaml").write_text(SMALL + "methods: {}\n")
    with pytest.raises(SystemExit, match="methods: unknown key"):
        main([str(tmp_path / "run.yaml"), *SIZE])


def test_the_fewest_interruptions_are_a_positive_share(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(SMALL)
    main([str(tmp_path / "run.yaml"), *SIZE, "--price", "1", "--spot-price", "1", "--interruptions", "1e-9"])
    assert "-0.0%" not in capsys.readouterr().out


def test_more_shards_than_memory_holds(tmp_path, capsys):
    prompts = {"per_iteration": 10**12, "shards": 10**10}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(prompts=prompts).model_dump()))
    main([str(tmp_path / "run.yaml"), *SIZE, "--price", "1", "--spot-price", "1"])
    assert "  generate: " in capsys.readouterr().out


def test_an_evaluation_that_no_history_has_is_not_known(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(SMALL)
    lines = {}
    for name, rate in {"none": math.nan, "last": [math.nan, 0.5]}.items():
        HISTORY.assign(win_rate=rate).to_csv("history.csv")
        main(["run.yaml", *SIZE, *FROM, "--history-shards", "2"])
        text = capsys.readouterr().out
        lines[name] = next(line.split() for line in text.splitlines() if line.startswith("evaluate "))
        assert ("What evaluate takes is not known: --history has no evaluated iteration" in text) == (name == "none")
    main(["run.yaml", *SIZE])
    estimate = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("evaluate "))
    assert lines["none"] == estimate
    assert lines["last"][2] == "0.4"  # two evaluations of 720 s
    assert pd.read_csv("history.csv")["win_rate"].notna().sum() == 1
