"""`wind plan --history`: whose times they are, of how many shards."""

from __future__ import annotations

import math

import pytest
import yaml

from components.plan import measured
from components.plan.__main__ import main
from components.plan.models import PlanError
from support.plans import HISTORY, SMALL, config

HOURS = {"start": 1.0, "generate": 8.0, "score": 4.0, "train": 16.0, "evaluate": 2.0}  # planned, of two iterations


def test_the_shards_of_a_history_are_its_own():
    """Four GPU hours of two shards are those of eight, which take a quarter of the time."""
    for shards in (2, 8, "auto"):
        found = measured.gpu_hours(config(prompts={"shards": shards}), HOURS, HISTORY, 2)
        assert found["generate"] == pytest.approx(8.0)
        for unknown in (HISTORY, HISTORY.assign(shards=[math.nan, 4])):
            with pytest.raises(PlanError, match=r"^--history does not say how many there were .* --history-shards"):
                measured.gpu_hours(config(prompts={"shards": shards}), HOURS, unknown)
        with pytest.raises(PlanError, match="--history-shards: --history tells how many"):
            measured.gpu_hours(config(prompts={"shards": shards}), HOURS, HISTORY.assign(shards=4), 2)
    drawn_in_training = measured.gpu_hours(config(algorithm={"name": "jbond"}), HOURS, HISTORY)
    assert drawn_in_training["train"] == pytest.approx(4.0)
    assert drawn_in_training["generate"] == drawn_in_training["score"] == 0.0


@pytest.mark.parametrize("seconds", [[0.0, 0.0], [1e-3, 2e-3], [3.7, 1e-3]])  # of the last, the first has imports in it
def test_a_history_of_an_algorithm_that_draws_in_training(seconds):
    history = HISTORY.assign(seconds_generate=seconds, seconds_score=seconds)
    with pytest.raises(PlanError, match=r"^--history: generate and score took no time in it, .* wind draws before"):
        measured.gpu_hours(config(), HOURS, history, 2)
    found = measured.gpu_hours(config(algorithm={"name": "jbond"}), HOURS, history)
    assert (found["generate"], found["score"], found["train"]) == (0.0, 0.0, pytest.approx(4.0))


def test_a_historys_times_have_the_waiting_for_the_network_in_them(tmp_path, capsys):
    """Two hours of training for 100 prompts on 2 x 8 GPUs are four for 200, as on a machine alone."""
    HISTORY.to_csv(tmp_path / "history.csv")
    options = ["--parameters", "1e12", "--history", str(tmp_path / "history.csv"), "--history-shards", "2"]
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(plan_of({"processes": 8})))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(plan_of({"processes": 8, "nodes": 2})))
    main([str(tmp_path / "one.yaml"), *options])
    assert "  train: 4 hours on 1 x 8 GPUs, 32 GPU hours" in capsys.readouterr().out
    main([str(tmp_path / "two.yaml"), *options])
    text = capsys.readouterr().out
    assert "  train: 4 hours on 2 x 8 GPUs, 64 GPU hours" in text
    assert "Between machines" not in text
    main([str(tmp_path / "two.yaml"), *options[:2]])
    assert "Between machines 50 Gbit/s" in capsys.readouterr().out


def plan_of(training):
    return {**yaml.safe_load(SMALL), "training": {**training, "batch_size": 20, "micro_batch_size": 1}}


@pytest.mark.parametrize(("given", "rate"), [([], 0.05), (["--interruptions", "0"], 0.0)])
def test_no_interruptions_are_none(tmp_path, capsys, given, rate):
    """Two iterations of four hours, each in two tasks of an hour on a spot machine."""
    (tmp_path / "run.yaml").write_text(SMALL)
    history = HISTORY.assign(seconds_generate=1800.0, seconds_score=0.0)
    history.to_csv(tmp_path / "history.csv")
    options = ["--parameters", "1e9", "--history", str(tmp_path / "history.csv"), "--history-shards", "2"]
    main([str(tmp_path / "run.yaml"), *options, "--price", "2", "--spot-price", "1", *given])
    lost = rate and math.expm1(rate) / rate - 1
    again = f", of which {lost / (1 + lost):.1%} are done again" if rate else ""
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  generate:"))
    assert line.partition(" hours on ")[2] == f"2 x 1 GPUs, {4 * (1 + lost):.3g} GPU hours{again}"
    assert line.startswith("  generate: 2 hours") == (rate == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--interruptions", "-1"], "'-1' is neither 0 nor a number from 1e-09 to 1e+15"),
        (["--interruptions", "nan"], "'nan' is neither 0 nor a number"),
        (["--price", "0"], "'0' is no number from 1e-09 to 1e+15"),
        (["--history-shards", "1.5"], "'1.5' is no whole number from 1"),
        (["--interruptions", "1e-320"], "'1e-320' is neither 0 nor a number from 1e-09"),
        (["--interruptions", "1e-310"], "'1e-310' is neither 0 nor a number from 1e-09"),
        (["--network", "1e-310"], "'1e-310' is no number from 1e-09"),
        (["--price", "1e16"], "'1e16' is no number from 1e-09 to 1e+15"),
        *(
            (["--price", text], f"{text!r} is no number")
            for text in ("\uff11", "\u0663", "1_000", "0x10", " 1", "1,5", "inf")
        ),
        (["--prompt-tokens", "\uff13\uff10\uff10"], "'３００' is no number"),
        (["--history-shards", "３"], "'３' is no whole number"),
        (["--history-shards", "0"], "'0' is no whole number from 1"),
    ],
)
def test_options_that_are_no_numbers(tmp_path, capsys, options, message):
    (tmp_path / "run.yaml").write_text(SMALL)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "run.yaml"), *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("compare", [None, {"arms": {"one": {}, "other": {"training": {"epochs": 2}}}}])
def test_a_warning_comes_once_in_a_plan(tmp_path, caplog, compare):
    """Also of arms that are alike in what it tells of; again in the next plan."""
    values = {**yaml.safe_load(SMALL), "compare": compare}
    values["prompts"] |= {"shards": "auto", "most_shards": 2, "shard_minutes": 1e-6}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    for count in (1, 2):
        main([str(tmp_path / "run.yaml"), "--parameters", "1e9"])
        assert len([line for line in caplog.messages if "Raise prompts.most_shards (2)" in line]) == count
