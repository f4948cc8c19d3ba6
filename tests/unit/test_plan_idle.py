"""`wind plan` where processes that train together outnumber a step's prompts, or cannot share them equally."""

from __future__ import annotations

import pytest
import yaml

from components.plan import elapsed, table
from components.plan.__main__ import main
from components.plan.costs import busiest, busy
from components.plan.elapsed import Machines
from support.plans import LENGTHS, MODELS, SMALL, config

GPU = table.GPUS["H100"]
PROMPTS = {"per_iteration": 1000, "shards": 7}


def trained(**training):
    """GPU hours to train on 3 x 1,000 prompts; with checkpointing, several processes read no prompt more than one."""
    run = config(iterations=3, prompts=PROMPTS, training={"gradient_checkpointing": True, **training})
    return table.gpu_hours(run, MODELS, LENGTHS, GPU)["train"]


@pytest.mark.parametrize(
    ("training", "times"),
    [
        ({"nodes": 2, "processes": 32, "batch_size": 1, "micro_batch_size": 1}, 64),  # one works, 63 wait
        ({"nodes": 2, "processes": 4, "batch_size": 20}, 8 * 3 / 20),  # three each, of which four have two
        ({"nodes": 2, "processes": 4, "batch_size": 40}, 1),  # five each
        ({"nodes": 2, "processes": 4, "batch_size": 32}, 1),  # 31 steps of four each, and one of a prompt each
        ({"processes": 16, "batch_size": 32}, 16 * (31 * 2 + 1) / 1000),  # in the last step eight have one
        ({"processes": 8, "batch_size": 5000}, 1),  # one step of 125 each
        ({"processes": 7, "batch_size": 5000}, 7 * 143 / 1000),
    ],
)
def test_a_step_lasts_as_long_as_the_process_with_the_most_prompts(training, times):
    assert trained(**training) == pytest.approx(times * trained(batch_size=20))


def test_a_step_deals_its_prompts_as_training_does():
    """Counts, prompt by prompt, who has which of a step's: rank r those at r, r + world, and so on."""
    for n, size, nodes, processes in [(100, 7, 1, 3), (23, 10, 2, 4), (64, 64, 4, 5), (5, 9, 2, 1)]:
        world, most, rounds = nodes * processes, 0, 0
        for begin in range(0, n, size):
            step = list(range(begin, min(begin + size, n)))
            largest = max(len(step[rank::world]) for rank in range(world))
            most += largest
            rounds += len(range(0, largest, 2))
        run = config(
            prompts={"per_iteration": n, "shards": 1},
            training={"batch_size": size, "nodes": nodes, "processes": processes},
        )
        assert (busiest(run), busiest(run, 2)) == (most, rounds)
        assert busy(run) == pytest.approx(n / (world * most))


def test_time_and_money_follow():
    """An hour's work of one process: 16 GPUs have one prompt of a step each, and the others of 64 none."""
    training = {"nodes": 2, "processes": 32, "batch_size": 16}
    run = config(prompts={"per_iteration": 160, "shards": 1}, training=training)
    hours = {"train": 1.0 / busy(run)}
    found = elapsed.steps(run, MODELS, hours, Machines(network=float("inf")))
    assert found["train"].hours == pytest.approx(1 / 16)
    assert elapsed.cost(found, 3.0, Machines()) == pytest.approx(3 * 4)


def test_a_gpu_without_a_process_idles():
    run = config(resources={"train": {"gpu": 4}})
    assert busy(run) == 1 / 4
    assert busy(config()) == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"training": {"processes": 8, "batch_size": 20}},
            "train: processes idle in 16.7% of its GPU hours; let their number, 8, ",
        ),
        (
            {"training": {"processes": 8, "batch_size": 16}},
            "train: processes idle in 3.85% of its GPU hours; let their number, 8, ",
        ),
        ({"training": {"processes": 4, "batch_size": 20}}, None),
        ({"resources": {"train": {"gpu": 4}}}, "train: of its 4 GPUs its one process uses one"),
    ],
)
def test_the_plan_says_that_processes_idle(tmp_path, capsys, values, told):
    """100 prompts: of 24 places in a step 20 are taken; six steps of two each and one of a single one, 104 places."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**yaml.safe_load(SMALL), **values}))
    main([str(tmp_path / "run.yaml"), "--parameters", "1e9"])
    text = capsys.readouterr().out
    assert "A training step lasts as long as the process with the most prompts needs" in text
    if told is None:
        assert "\ntrain: " not in text
    else:
        assert f"\n{told}" in text
