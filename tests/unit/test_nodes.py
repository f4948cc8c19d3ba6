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
from components.stages import training_processes
from components.stages.context import open_workspace
from components.store import open_store
from support import held_training
from support.forked import forked as forked_process
from support.forked import forking
from support.iterations import assert_close_weights, sampled_and_scored, slowly

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

NODE = """
import json, os, pickle, sys
from pathlib import Path
from components import stages
from components.stages import training_processes
from components.runtime.processes import end_in_order
from components.stages.context import open_workspace

end_in_order()
if "HELD_UNTIL" in os.environ:
    training_processes.__name__ = "support.held_training"
folder, index = Path(sys.argv[1]), int(sys.argv[2])
job = pickle.loads((folder / "job").read_bytes())

def progress(done, total, **figures):
    with (folder / f"steps-{index}").open("a") as file:
        print(done, file=file)

with open_workspace(job["config"], job["root"], "train", progress=lambda _: progress) as work:
    trained = stages.train_on(work, job["given"], stages.Node(index, 2, job["meeting"]))
(folder / f"trained-{index}").write_bytes(pickle.dumps(trained))
"""
TESTS = Path(__file__).parents[1]
MANY = {"batch_size": 1, "micro_batch_size": 1, "checkpoint_steps": 1}  # 16 optimiser steps, each of them saved


@pytest.fixture(scope="module")
def iteration(tmp_path_factory):
    return sampled_and_scored(str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def forked(monkeypatch):
    """Processes that need not import torch, and theirs; others show that real ones train and end the same way."""
    monkeypatch.setattr(training_processes, "subprocess", forking)
    monkeypatch.setitem(globals(), "Process", forked_process)


Process = subprocess.Popen


def begin(iteration, folder: Path, indices=(0, 1), env=None, **training) -> list[subprocess.Popen]:
    """Nodes that train, each with its number."""
    root, given = iteration
    folder.mkdir()
    job = {"config": slowly(nodes=2, **training), "root": root, "given": given}
    (folder / "job").write_bytes(pickle.dumps({**job, "meeting": (folder / "meeting").as_uri()}))
    return [
        Process(
            [sys.executable, "-c", NODE, str(folder), str(i)],
            env={**os.environ, **(env or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in indices
    ]


def end(nodes: list[subprocess.Popen], seconds: float = 600) -> list[str]:
    """What nodes said on standard error, which have ended by then."""
    limit = time.monotonic() + seconds
    try:
        return [node.communicate(timeout=limit - time.monotonic())[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()


def weights(root: str, trained) -> dict[str, torch.Tensor]:
    with open_workspace(slowly(), root, "evaluate") as work:
        folder = work.fetch(trained.policy)
        return load_file(max(folder.glob("adapter/*.safetensors"), default=folder / "model.safetensors"))


def alone(iteration, **training):
    root, given = iteration
    with open_workspace(slowly(**training), root, "train") as work:
        return stages.train(work, given)


@pytest.mark.parametrize(("processes", "training"), [(1, {}), (2, {}), (2, {"lora": {"rank": 4, "alpha": 8}})])
def test_two_nodes_train_as_one(iteration, tmp_path, request, processes, training):
    """With an adapter, each of two nodes has the whole base, spread over its two processes."""
    if processes == 2:
        request.getfixturevalue("forked")
    expected = alone(iteration, **training)
    nodes = begin(iteration, tmp_path / "together", processes=processes, **training)
    said = end(nodes)
    assert [node.returncode for node in nodes] == [0, 0], said
    first, second = (pickle.loads((tmp_path / "together" / f"trained-{i}").read_bytes()) for i in (0, 1))
    assert second is None
    assert first.figures == pytest.approx(expected.figures, rel=1e-5, abs=1e-6)
    assert_close_weights(weights(iteration[0], first), weights(iteration[0], expected))


@pytest.mark.parametrize(("victim", "training"), [(0, {}), (1, {}), (1, {"lora": {"rank": 4, "alpha": 8}})])
def test_when_a_node_is_killed_both_end_and_the_next_attempt_continues(
    iteration, tmp_path, wait_for, forked, victim, training
):
    """With its processes, as a machine that goes away; the other finds its connections closed."""
    settings = {**MANY, **training}
    folder, store, gone = tmp_path / "first", open_store(iteration[0]), tmp_path / "gone"
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    nodes = begin(iteration, folder, env={held_training.HELD: str(gone), "PYTHONPATH": path}, **settings)
    wait_for(lambda: list(store.notes()), seconds=600)
    for child in children(nodes[victim].pid):
        os.kill(child, signal.SIGKILL)
    nodes[victim].kill()
    gone.touch()
    said = end(nodes)
    assert nodes[victim].returncode == -signal.SIGKILL
    assert nodes[1 - victim].returncode == 1
    assert "training in 2 processes failed, see above, also what other nodes say" in said[1 - victim]
    assert not (folder / "trained-0").exists()

    again = begin(iteration, tmp_path / "second", **settings)
    said = end(again)
    assert [node.returncode for node in again] == [0, 0], said
    done = [int(line) for line in (tmp_path / "second" / "steps-0").read_text().split()]
    assert done == list(range(done[0], 17)[: len(done)])
    assert done[0] > 1  # those before it were saved
    trained = pickle.loads((tmp_path / "second" / "trained-0").read_bytes())
    assert_close_weights(weights(iteration[0], trained), weights(iteration[0], alone(iteration, **settings)))
    for note in list(store.notes()):
        with open_workspace(slowly(), iteration[0], "evaluate") as work:
            stages.forget_unfinished(work, note.name)


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in listed.split()]


def test_a_node_that_never_comes_is_not_waited_for_without_end(iteration, tmp_path, forked):
    (node,) = begin(iteration, tmp_path / "lonely", indices=[0], nodes_wait_minutes=0.05)
    (said,) = end([node], seconds=600)
    assert node.returncode == 1
    assert "training in 2 processes failed" in said


def test_a_task_that_was_killed_before_training_ends_the_first_node(iteration, tmp_path, forked):
    """Nobody has waited for it, and its node comes to no meeting."""
    root, given = iteration
    begin = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as task:
        task.kill()
        os.waitid(os.P_PID, task.pid, os.WEXITED | os.WNOWAIT)
        node = stages.Node(0, 2, (tmp_path / "meeting").as_uri(), tasks=(task.pid,))
        with (
            open_workspace(slowly(nodes=2), root, "train") as work,
            pytest.raises(RuntimeError, match="training in 2 processes failed, see above, also what other nodes say"),
        ):
            stages.train_on(work, given, node)
    assert time.monotonic() - begin < 120


def test_a_single_machine_does_not_train_for_several(iteration):
    with pytest.raises(ConfigError, match=r"^training\.nodes: 2 machines are to train, and this is one of 1\."):
        alone(iteration, nodes=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": {"name": "jbond"}}, "algorithm.name: jbond trains in one process, since"),
        ({"compare": {"arms": {"wind": {}, "dpo": {"algorithm": {"name": "dpo"}}}}}, "training.nodes: is not for com"),
        ({"training": {"nodes": 0}}, "training.nodes: 0 cannot be used."),
    ],
)
def test_what_does_not_go_together_with_nodes(changes, message):
    training = {"nodes": 2, **changes.get("training", {})}
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump({"demo": {}, **changes, "training": training}))
    assert str(caught.value).startswith(message)
