"""`wind plan` of what earlier runs have done or told: loading models, a run that continues, and the network's line."""

from __future__ import annotations

import pytest
import yaml

from components.plan import elapsed, measured
from components.plan.__main__ import main
from components.plan.elapsed import Machines
from support.plans import HISTORY, MODELS, SMALL, config

HOURS = {"start": 1.0, "generate": 8.0, "score": 4.0, "train": 16.0, "evaluate": 2.0}
# Of 2160 s and 5760 s for 50 prompts in two shards, 216 and 576 s loaded: 36 and 36 of that to score.
LOADED = HISTORY.assign(seconds_loading=[216.0, 576.0], shards=2)


def planned(**changes):
    run = config(**changes)
    hours, loading = measured.gpu_hours(run, HOURS, LOADED), measured.loading(LOADED)
    return elapsed.steps(run, MODELS, hours, Machines(), loading), elapsed.with_loading(run, hours, loading)


def test_each_shard_loads_its_models():
    """A tenth of the seconds is loading, 360 and 36 a task. Of 7200 s in two shards 0.9 are for 100 prompts.

    So twice as many prompts take 4 x 6480 s of generate in all, and each task 360 s more.
    """
    assert measured.loading(LOADED) == pytest.approx({"generate": (180 + 540) / 2, "score": 36})
    for count in (2, 4, 10):
        steps, hours = planned(prompts={"shards": count})
        assert steps["generate"].hours == pytest.approx(2 * (4 * 6480 / 2 / count + 360) / 3600)
        assert steps["generate"].gpu_hours == pytest.approx((4 * 6480 + 2 * count * 360) / 3600)
        assert hours["generate"] == pytest.approx(steps["generate"].gpu_hours)
        assert steps["score"].hours == pytest.approx(2 * (4 * 648 / 2 / count + 36) / 3600)
    assert measured.loading(HISTORY) == {}


def test_shards_that_split_unevenly_take_as_long_as_the_largest():
    """100 prompts in three shards: one has 34."""
    steps, _ = planned(prompts={"shards": 3})
    assert steps["generate"].hours == pytest.approx(2 * (4 * 6480 / 2 * 0.34 + 360) / 3600)


def test_a_run_that_continues_has_no_start(tmp_path, capsys):
    """Neither the reference's responses nor the base policy of 2 GB are made again."""
    kept = {}
    for origin in (None, "WindFlow/1", "latest"):
        (tmp_path / "run.yaml").write_text(SMALL + (f"start_from: {origin}\n" if origin else ""))
        main([str(tmp_path / "run.yaml"), "--parameters", "1e9"])
        text = capsys.readouterr().out
        assert ("\nstart  " in text) == (origin is None)
        assert (f"continues {origin}" in text) == (origin is not None)
        line = next(line for line in text.splitlines() if line.startswith("stored: "))
        kept[origin] = [float(word) for word in line.split() if word[0].isdigit()]
    assert kept["WindFlow/1"] == kept["latest"]
    assert kept["latest"] == [12.0, 24.0]  # 12 bytes a weight, two iterations
    assert kept[None] == [12.0, 26.0]


def test_waiting_for_the_network_has_a_line_of_its_own(tmp_path, capsys):
    """Five batches of 20 in two iterations, on 2 x 2 processes three micro-batches each: 12 GB, half from afar."""
    training = {"nodes": 2, "processes": 2, "batch_size": 20, "micro_batch_size": 2}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**yaml.safe_load(SMALL), "training": training}))
    main([str(tmp_path / "run.yaml"), "--parameters", "1e9", "--network", "8"])
    hours = 2 * 5 * 3 * 6 / 3600
    assert f"    in {hours:.3g} of these hours all wait for the network between machines\n" in capsys.readouterr().out
