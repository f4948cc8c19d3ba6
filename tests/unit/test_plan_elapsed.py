"""`wind plan` for shards, several machines, spot prices and from a history."""

from __future__ import annotations

import math

import pytest
import yaml

from components.plan import elapsed, measured
from components.plan.__main__ import main
from components.plan.costs import Models
from components.plan.elapsed import Machines
from components.plan.history import read
from components.plan.memory import BF16, memory
from components.plan.models import PlanError
from support.plans import HISTORY, LENGTHS, MODELS, POLICY, SMALL, config

HOURS = {"start": 1.0, "generate": 8.0, "score": 4.0, "train": 16.0, "evaluate": 2.0}  # two iterations


def planned(machines=None, models=MODELS, hours=HOURS, **changes):
    return elapsed.steps(config(**changes), models, hours, machines or Machines())


def test_shards_at_once_and_gpus_of_a_task():
    """Four shards on two GPUs each do eight hours in one."""
    engine = {"name": "vllm", "tensor_parallel": 2}
    found = planned(prompts={"shards": 4}, generation={"engine": engine}, training={"processes": 8})
    assert (found["generate"].hours, found["generate"].gpu_hours) == (1.0, 8.0)
    assert (found["train"].hours, found["train"].gpu_hours) == (2.0, 16.0)
    assert (found["start"].tasks, found["start"].gpus, found["start"].hours) == (1, 2, 0.5)
    assert "expected time:" in elapsed.render(found)
    assert elapsed.render(planned(prompts={"shards": 1})) == ""


def test_machines_wait_for_their_network():
    """Two iterations of 5 batches; 20 prompts on 2 x 2 processes are 5 each, three micro-batches of 2.

    Three times 4e9 bytes, half of them on the other machine, at 1e9 bytes a second: 6 s a micro-batch.
    """
    found = planned(Machines(network=1e9), training={"nodes": 2, "processes": 2})
    waited = 2 * 5 * 3 * 6 / 3600
    assert found["train"].hours == pytest.approx(16 / 4 + waited)
    assert found["train"].gpu_hours == pytest.approx(16 + 4 * waited)
    assert planned(Machines(network=1), training={"processes": 4})["train"].hours == 4.0
    adapted = planned(Machines(network=1e9), Models(POLICY, 1e6, BF16, []), training={"nodes": 2, "lora": {}})
    assert adapted["train"].hours == pytest.approx(8 + 2 * 5 * 5 * 2 * 4e6 / 2 / 1e9 / 3600)


def test_what_spot_machines_do_again():
    """A task of an hour that is interrupted once an hour takes e - 1 hours on average."""
    machines = Machines(spot_price=1.0, interruptions=1.0)
    found = planned(machines, prompts={"shards": 4})  # an hour each, and half an hour to score
    assert found["generate"].gpu_hours == pytest.approx(8 * (math.e - 1))
    assert found["generate"].again == pytest.approx(math.e - 2)
    assert found["score"].gpu_hours == pytest.approx(8 * (math.exp(0.5) - 1))
    assert found["train"].gpu_hours == 16.0
    kept = 1 + 16 + 2  # start, train and evaluate at the full price
    assert elapsed.cost(found, 3.0, machines) == pytest.approx(3 * kept + 8 * (math.e - 1 + math.exp(0.5) - 1))
    assert elapsed.cost(planned(), 3.0, Machines()) == pytest.approx(3 * sum(HOURS.values()))


def test_memory_of_an_adapter_on_several_machines():
    """bf16 weights and 4 bytes of the adapter's, which each process loads; 12 more of its gradient and moments.

    Two of ten layers are whole beside the share of a process, of those of one machine; with logits that is most.
    """
    models = Models(POLICY, 1e6, BF16, [])
    fixed = 320 * 47000 + 3 * 512 * 2**20
    found = memory(config(training={"processes": 4, "nodes": 2, "lora": {}}), models, LENGTHS)
    assert found["train"] == (2e9 + 16e6) / 4 + 2 * 2e8 + fixed
    found = memory(config(training={"nodes": 8, "lora": {}}), models, LENGTHS)
    assert found["train"] == pytest.approx(2e9 + 16e6 + 2 * 2e8 + fixed)


def test_hours_from_a_history(tmp_path):
    """A hundred prompts took 7200 s in two shards: 4 GPU hours; this run has twice as many prompts."""
    HISTORY.to_csv(tmp_path / "history.csv")
    history = read(tmp_path / "history.csv")
    found = measured.gpu_hours(config(training={"nodes": 2, "processes": 4}), HOURS, history, 2)
    assert found == pytest.approx({"start": 1.0, "generate": 8.0, "score": 0.8, "train": 32.0, "evaluate": 0.4})
    counted = measured.gpu_hours(config(prompts={"shards": "auto"}), HOURS, history.assign(shards=[8, 4]))
    assert counted["generate"] == pytest.approx(2 * 50 * (0.5 / 7 + 1.5 / 13))  # the largest of 8 shards has 7
    part = measured.gpu_hours(config(), HOURS, history.assign(shards=[math.nan, 4]), 2)
    assert part["generate"] == pytest.approx(2 * 50 * (0.5 / 25 + 1.5 / 13))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "cannot be read"),
        ("iteration,prompts,seconds_generate\n1,1,2\n", "has no column seconds_score"),
        (HISTORY.iloc[:0].to_csv(), "has no rows"),
        (
            HISTORY.assign(seconds_train=math.nan).to_csv(),
            "seconds_train, row 1 below the names: an empty cell",
        ),
        (HISTORY.assign(prompts="many").to_csv(), "prompts, row 1 below the names: 'many' is no whole number"),
        (HISTORY.assign(prompts=0).to_csv(), "prompts, row 1 below the names: '0' is no whole number from 1"),
    ],
)
def test_a_file_that_is_no_history(tmp_path, text, message):
    if text is not None:
        (tmp_path / "history.csv").write_text(text)
    with pytest.raises(PlanError, match=message):
        read(tmp_path / "history.csv")


def test_the_command(tmp_path, capsys):
    run = {**yaml.safe_load(SMALL), "training": {"nodes": 2, "processes": 8, "batch_size": 64}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    HISTORY.to_csv(tmp_path / "history.csv")
    options = ["--parameters", "1e9", "--price", "2", "--spot-price", "0.5", "--interruptions", "0.2"]
    main([str(tmp_path / "run.yaml"), *options, "--history", str(tmp_path / "history.csv"), "--history-shards", "2"])
    text = capsys.readouterr().out
    assert "hours on 2 x 8 GPUs" in text
    assert "are done again" in text
    assert "USD at 2 USD an hour, 0.5 on spot machines" in text
    assert "those of --history" in text
    assert "train  " in text


def test_much_that_is_done_again_has_a_remedy():
    found = planned(Machines(spot_price=1.0, interruptions=1.0), prompts={"shards": 4})
    assert "  generate: " in elapsed.render(found)
    assert "are done again; raise prompts.shards" in elapsed.render(found)
    few = planned(Machines(spot_price=1.0, interruptions=0.01), prompts={"shards": 4})
    assert "raise prompts.shards" not in elapsed.render(few)
