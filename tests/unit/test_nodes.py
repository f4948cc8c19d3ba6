"""Training on two nodes: each a process of its own that starts those which train, with gloo, on this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from components import stages
from components.config.errors import ConfigError
from components.run_config import parse
from components.stages.context import open_workspace
from components.store import open_store
from support.runs import smoke

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

NODE = """
import json, pickle, sys
from pathlib import Path
from components import stages
from components.runtime.processes import end_in_order
from components.stages.context import open_workspace

end_in_order()
folder, index = Path(sys.argv[1]), int(sys.argv[2])
job = pickle.loads((folder / "job").read_bytes())

def progress(done, total, **figures):
    with (folder / f"steps-{index}").open("a") as file:
        print(done, file=file)

with open_workspace(job["config"], job["root"], "train", progress=lambda _: progress) as work:
    trained = stages.train_on(work, job["given"], stages.Node(index, 2, job["meeting"]))
(folder / f"trained-{index}").write_bytes(pickle.dumps(trained))
"""
MANY = {"batch_size": 1, "micro_batch_size": 1, "checkpoint_steps": 1}  # 16 optimiser steps, each of them saved


def config(**training):
    """The smoke preset at a low rate."""
    return smoke(training={"learning_rate": 1e-4, **training})


@pytest.fixture(scope="module")
def iteration(tmp_path_factory):
    """The store, and what the first iteration's training begins with."""
    root = str(tmp_path_factory.mktemp("store"))
    with open_workspace(config(), root, "start") as work:
        started = stages.start(work)
        shards = stages.plan(work, started.prompts, 1)
        drawn = [stages.generate(work, started.policy, shard, 1) for shard in shards]
        pairs = zip(drawn, shards, strict=True)
        scored = [stages.score(work, started.policy, started.policy, rollout, shard) for rollout, shard in pairs]
    return root, stages.TrainInput(started.policy, None, shards, scored, 1)


def begin(iteration, folder: Path, indices=(0, 1), **training) -> list[subprocess.Popen]:
    """Nodes that train, each with its number."""
    root, given = iteration
    folder.mkdir()
    job = {"config": config(nodes=2, **training), "root": root, "given": given}
    (folder / "job").write_bytes(pickle.dumps({**job, "meeting": (folder / "meeting").as_uri()}))
    return [
        subprocess.Popen([sys.executable, "-c", NODE, str(folder), str(i)], stderr=subprocess.PIPE, text=True)
        for i in indices
    ]


def end(nodes: list[subprocess.Popen], seconds: float = 300) -> list[str]:
    """What nodes said on standard error, which have ended by then."""
    limit = time.monotonic() + seconds
    try:
        return [node.communicate(timeout=limit - time.monotonic())[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()


def weights(root: str, trained) -> dict[str, torch.Tensor]:
    with open_workspace(config(), root, "evaluate") as work:
        return load_file(work.fetch(trained.policy) / "model.safetensors")


def alone(iteration, **training):
    root, given = iteration
    with open_workspace(config(**training), root, "train") as work:
        return stages.train(work, given)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_two_nodes_train_as_one(iteration, tmp_path, processes):
    expected = alone(iteration)
    nodes = begin(iteration, tmp_path / "together", processes=processes)
    said = end(nodes)
    assert [node.returncode for node in nodes] == [0, 0], said
    first, second = (pickle.loads((tmp_path / "together" / f"trained-{i}").read_bytes()) for i in (0, 1))
    assert second is None
    assert first.figures == pytest.approx(expected.figures, rel=1e-5, abs=1e-6)
    assert_close(weights(iteration[0], first), weights(iteration[0], expected))


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_node_is_killed_both_end_and_the_next_attempt_continues(iteration, tmp_path, wait_for, victim):
    """With its processes, as a machine that goes away; the other finds its connections closed."""
    folder, store = tmp_path / "first", open_store(iteration[0])
    nodes = begin(iteration, folder, **MANY)
    steps = folder / "steps-0"
    wait_for(lambda: list(store.notes()) and steps.exists(), seconds=300)
    for child in children(nodes[victim].pid):
        os.kill(child, signal.SIGKILL)
    nodes[victim].kill()
    said = end(nodes, seconds=90)
    assert nodes[victim].returncode == -signal.SIGKILL
    assert nodes[1 - victim].returncode == 1
    assert "training in 2 processes failed, see above, also what other nodes say" in said[1 - victim]
    assert not (folder / "trained-0").exists()

    again = begin(iteration, tmp_path / "second", **MANY)
    said = end(again)
    assert [node.returncode for node in again] == [0, 0], said
    done = [int(line) for line in (tmp_path / "second" / "steps-0").read_text().split()]
    assert done == list(range(done[0], 17)[: len(done)])
    assert done[0] > 1  # those before it were saved
    trained = pickle.loads((tmp_path / "second" / "trained-0").read_bytes())
    assert_close(weights(iteration[0], trained), weights(iteration[0], alone(iteration, **MANY)))
    for note in list(store.notes()):
        with open_workspace(config(), iteration[0], "evaluate") as work:
            stages.forget_unfinished(work, note.name)


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in listed.split()]


def test_a_node_that_never_comes_is_not_waited_for_without_end(iteration, tmp_path):
    (node,) = begin(iteration, tmp_path / "lonely", indices=[0], nodes_wait_minutes=0.05)
    (said,) = end([node], seconds=120)
    assert node.returncode == 1
    assert "training in 2 processes failed" in said


def test_a_single_machine_does_not_train_for_several(iteration):
    with pytest.raises(ConfigError, match=r"^training\.nodes: 2 machines are to train, and this is one of 1\."):
        alone(iteration, nodes=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": {"name": "jbond"}}, "algorithm.name: jbond trains in one process. Set training.nodes: 1."),
        ({"training": {"lora": {}}}, "training.lora: trains in one process. Set training.nodes: 1."),
        ({"compare": {"arms": {"wind": {}, "dpo": {"algorithm": {"name": "dpo"}}}}}, "training.nodes: is not for com"),
        ({"training": {"nodes": 0}}, "training.nodes: 0 cannot be used."),
    ],
)
def test_what_does_not_go_together_with_nodes(changes, message):
    training = {"nodes": 2, **changes.get("training", {})}
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump({"demo": {}, **changes, "training": training}))
    assert str(caught.value).startswith(message)
