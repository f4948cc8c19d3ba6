"""`wind plan` with `prompts.shards: auto`: as many as may be while nothing is known, then by the time that is given."""

from __future__ import annotations

import math

import pytest
import yaml

from components.plan import elapsed, measured
from components.plan.__main__ import main
from components.plan.elapsed import Machines
from support.plans import HISTORY, MODELS, SMALL, config

HOURS = {"start": 1.0, "generate": 8.0, "score": 4.0, "train": 16.0, "evaluate": 2.0}  # two iterations
# Of 2160 s and 5760 s for 50 prompts in two shards, 216 and 576 s loaded: 36 and 36 of that to score.
LOADED = HISTORY.assign(seconds_loading=[216.0, 576.0], shards=2)


def automatic(most=100, minutes=10.0, **changes):
    return config(prompts={"shards": "auto", "shard_minutes": minutes, "most_shards": most}, **changes)


def test_the_first_iteration_has_as_many_as_may_be():
    """Two iterations of 6 hours each, in tasks of 10 minutes: 36. Of 100 prompts there are no more shards than that."""
    assert elapsed.shards(automatic(), HOURS) == [100, 36]
    assert elapsed.shards(automatic(500), HOURS) == [100, 36]
    assert elapsed.shards(automatic(20), HOURS) == [20, 20]
    assert elapsed.shards(automatic(iterations=1), HOURS) == [100]
    assert elapsed.shards(automatic(iterations=4), HOURS) == [100, 18, 18, 18]
    assert elapsed.shards(automatic(), {**HOURS, "generate": 1e-3, "score": 0.0}) == [100, 1]
    assert elapsed.shards(config(prompts={"shards": 7}), HOURS) == [7, 7]


def test_a_run_that_continues_knows_its_times():
    assert elapsed.shards(automatic(start_from="WindFlow/1"), HOURS) == [36, 36]
    assert elapsed.shards(config(start_from="WindFlow/1", prompts={"shards": 7}), HOURS) == [7, 7]


@pytest.mark.parametrize(("minutes", "expected"), [(60, 5), (13.2, 36), (5, 36)])
def test_automatic_shards_know_what_loading_takes(minutes, expected):
    """14,256 s of work an iteration beside 396 s of loading: in 3204 s five, and never less than 396."""
    hours, loading = measured.gpu_hours(config(), HOURS, LOADED), measured.loading(LOADED)
    assert elapsed.shards(automatic(minutes=minutes), hours, loading) == [100, expected]


def test_the_first_iterations_shards_load_their_models_too():
    """12,960 s of generate an iteration and 360 s a task: in 100 tasks of a prompt, then in five of twenty."""
    hours, loading = measured.gpu_hours(config(), HOURS, LOADED), measured.loading(LOADED)
    run = automatic(minutes=60.0)
    found = elapsed.steps(run, MODELS, hours, Machines(), loading)["generate"]
    assert (found.tasks, found.later) == (100, 5)
    assert found.gpu_hours == pytest.approx((2 * 12960 + 105 * 360) / 3600)
    assert found.hours == pytest.approx((12960 / 100 + 12960 / 5 + 2 * 360) / 3600)
    assert elapsed.with_loading(run, hours, loading)["generate"] == pytest.approx(found.gpu_hours)


def test_each_iteration_loses_what_its_own_shards_do():
    """Four hours of generate an iteration: in 100 tasks, then in 36 of which the largest has three prompts."""
    found = elapsed.steps(automatic(), MODELS, HOURS, Machines(spot_price=1.0, interruptions=1.0))["generate"]
    lost = [(math.exp(alone) - 1) / alone for alone in (0.04, 0.12)]
    assert found.gpu_hours == pytest.approx(4 * sum(lost))
    assert found.again == pytest.approx(sum(lost) / 2 - 1)


@pytest.mark.parametrize("shards", ["auto", 2])
def test_the_plan_says_so(tmp_path, capsys, shards):
    values = yaml.safe_load(SMALL)
    values["prompts"] |= {"shards": shards, "most_shards": 40}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    main([str(tmp_path / "run.yaml"), "--parameters", "1e9"])
    text = capsys.readouterr().out
    assert ("With prompts.shards: auto, the first iteration of a run that continues none" in text) == (shards == "auto")
    assert (" hours on 40 x 1 GPUs (after the first iteration 1 x 1), " in text) == (shards == "auto")
