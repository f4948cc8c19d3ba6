"""Adapters and moments of 8 bits in two processes, with gloo on the CPU, against one."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from components import stages
from components.config.errors import ConfigError
from components.config.sections import LoraConfig, TrainingConfig
from components.policy import lora
from components.stages import training_processes
from components.stages.context import OPTIMIZER_FILE, open_workspace
from components.training import checks, shares
from components.training.checkpoints import Checkpoints
from support.forked import forked as forked_process
from support.forked import forking
from support.iterations import assert_close_weights, sampled_and_scored, slowly
from support.models.tiny import make_policy, needs_bitsandbytes

WIDE = {"hidden_size": 64}  # whose large matrices have more than 4096 numbers, so moments of 8 bits
LORA = {"rank": 4, "alpha": 8}
WIDE_LORA = {"rank": 64, "alpha": 64}  # whose matrices are that large, too
# A rate at which it stays below 1e-5 that a moment between two codes is rounded to the other one.
EIGHT = {"optimizer": "adamw_8bit", "learning_rate": 1e-5}
MANY = {"batch_size": 4, "micro_batch_size": 2}  # optimiser steps

slow = [pytest.mark.slow, pytest.mark.thorough]
cases = pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"lora": LORA}, marks=slow, id="adapter"),
        pytest.param(EIGHT, marks=[*slow, needs_bitsandbytes], id="8bit"),
        pytest.param({**EIGHT, "lora": WIDE_LORA}, marks=[*slow, needs_bitsandbytes], id="8bit-adapter"),
    ],
)


@pytest.fixture(scope="module")
def iteration(tmp_path_factory):
    return sampled_and_scored(str(tmp_path_factory.mktemp("store")), WIDE)


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """Processes that need not import torch, and have the patches of a test."""
    monkeypatch.setattr(training_processes, "subprocess", forking)


def train(iteration, given=None, **training):
    """What training gave, the weights that it changed, and the optimiser's state."""
    root, first = iteration
    with open_workspace(slowly(WIDE, **MANY, **training), root, "train") as work:
        trained = stages.train(work, given or first)
        folder = work.fetch(trained.policy)
        weights = load_file(max(folder.glob("adapter/*.safetensors"), default=folder / "model.safetensors"))
        return trained, weights, load_file(work.fetch(trained.optimizer) / OPTIMIZER_FILE)


@cases
def test_two_processes_train_as_one(iteration, changes):
    """Then a second iteration, in which one process continues with the moments of two, and two with those of one."""
    alone, expected, one = train(iteration, **changes)
    together, found, two = train(iteration, processes=2, **changes)
    assert_close_weights(found, expected)
    assert together.figures == pytest.approx(alone.figures, rel=1e-4, abs=1e-6)
    assert together.policy.keys() == alone.policy.keys()
    described = [{name: (moment.dtype, moment.shape) for name, moment in state.items()} for state in (one, two)]
    assert described[0] == described[1]
    in_bytes = {name for name, moment in two.items() if moment.dtype == torch.uint8}
    assert bool(in_bytes) == (changes.get("optimizer") == "adamw_8bit")

    second = replace(iteration[1], policy=alone.policy, iteration=2)
    _, expected, _ = train(iteration, replace(second, optimizer=alone.optimizer), **changes)
    for optimizer, processes in ((together.optimizer, 1), (alone.optimizer, 2)):
        _, found, _ = train(iteration, replace(second, optimizer=optimizer), processes=processes, **changes)
        assert_close_weights(found, expected)


@cases
def test_an_interrupted_group_continues_bit_for_bit(iteration, monkeypatch, changes):
    step_done, settings = Checkpoints.step_done, {"processes": 2, "checkpoint_steps": 1, **changes}

    def interrupted(self, state):
        step_done(self, state)
        if state.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "step_done", interrupted)
    with pytest.raises(RuntimeError, match="training in 2 processes failed"):
        train(iteration, **settings)
    monkeypatch.setattr(Checkpoints, "step_done", step_done)
    continued, found, kept = train(iteration, **settings)
    assert continued.seconds_before > 0
    with open_workspace(slowly(WIDE), iteration[0], "evaluate") as work:
        stages.forget_unfinished(work, continued.unfinished)
    undisturbed, expected, moments = train(iteration, **settings)
    assert undisturbed.seconds_before == 0
    assert undisturbed.policy == continued.policy
    assert undisturbed.optimizer == continued.optimizer
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(kept[name], moments[name]) for name in moments)


SHARED = """
import sys, torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn import Parameter
from components.training.adamw_8bit import AdamW8bit

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{world}", rank=rank, world_size=world)
mesh = init_device_mesh("cpu", (world,))
noise = torch.Generator().manual_seed(0)
shapes = [(64, 96), (5, 3000), (3, 7), (1, 9), (5000,)]  # the first in 8 bits; in_full; small; one row; a vector
spread = lambda value: distribute_tensor(value, mesh, [Shard(0)])
weights = [Parameter(spread(torch.randn(shape, generator=noise))) for shape in shapes]
optimizer = AdamW8bit([{"params": weights}], in_full=[weights[1]], lr=1e-2, weight_decay=0.1)
for _ in range(5):
    for weight in weights:
        weight.grad = spread(torch.randn(weight.shape, generator=noise))
    optimizer.step()
states = [{k: v for k, v in optimizer.state[w].items() if not k.startswith("qmap")} for w in weights]
whole = lambda value: value.full_tensor() if hasattr(value, "full_tensor") else value
found = [whole(w.detach()) for w in weights], [{k: whole(v) for k, v in state.items()} for state in states]
if rank == 0:
    torch.save(found, f"{folder}/found-{world}")
dist.destroy_process_group()
"""


@needs_bitsandbytes
@pytest.mark.slow
def test_shares_of_a_weight_take_the_steps_of_the_whole_bit_for_bit(tmp_path):
    """Five steps with the same gradients, on one process and on two."""
    for world in (1, 2):
        group = [
            forked_process([sys.executable, "-c", SHARED, str(tmp_path), str(rank), str(world)], env={**os.environ})
            for rank in range(world)
        ]
        assert [process.wait(300) for process in group] == [0] * world
    (one, states_of_one), (two, states_of_two) = (torch.load(tmp_path / f"found-{world}") for world in (1, 2))
    assert [state["state1"].dtype for state in states_of_one] == [torch.uint8, *[torch.float32] * 4]
    torch.testing.assert_close(two, one, rtol=0, atol=0)
    torch.testing.assert_close(states_of_two, states_of_one, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shape", "processes"),
    [
        ((109, 96), 1),  # alone nothing is cut
        ((64, 64), 16),  # 4 rows each, one block
        ((128, 24), 3),  # fewer than 4096 numbers: 32 bits, shared as one likes
        ((5120,), 8),  # vectors, too
        ((8, 32, 32), 8),  # an expert each
    ],
)
def test_weights_that_processes_can_share(shape, processes):
    shares.require_whole_blocks([("w", shape)], processes)


@pytest.mark.parametrize(
    ("shape", "processes"),
    [
        ((64, 64), 32),  # 2 rows each, half a block
        ((99, 256), 2),  # an odd number of rows
        ((4, 4096), 8),  # fewer rows than processes
    ],
)
def test_weights_whose_blocks_would_be_cut_are_refused(shape, processes):
    with pytest.raises(ConfigError) as caught:
        shares.require_whole_blocks([("layers.0.up", (64, 64 * processes)), ("layers.0.down", shape)], processes)
    assert str(caught.value).startswith(
        "training.optimizer: adamw_8bit has moments in blocks of 256, and layers.0.down"
    )
    assert f"by {processes} processes" in str(caught.value)
    assert str(caught.value).endswith("Use adamw, or another number of training.processes.")


@needs_bitsandbytes
def test_start_asks_for_all_weights_or_for_those_of_the_adapter():
    """A head of 20 rows has 320 numbers; matrices of 64 by 5 000 are shared by two, and not by three."""
    model = make_policy().model
    model.model.layers[0].mlp.up_proj = nn.Linear(64, 5000, bias=False)
    checks.check(TrainingConfig(optimizer="adamw_8bit", nodes=2, processes=1), model)
    with pytest.raises(ConfigError, match=r"layers\.0\.mlp\.up_proj\.weight of shape \[5000, 64\] .* by 3 processes"):
        checks.check(TrainingConfig(optimizer="adamw_8bit", nodes=3), model)
    adapter = LoraConfig(rank=64, alpha=64, target_modules=["up_proj"])
    checks.check(TrainingConfig(optimizer="adamw_8bit", nodes=3, lora=adapter), model)  # every node has all of it
    with pytest.raises(ConfigError, match=r"up_proj\.lora_A of shape \[64, 64\] .* by 3 processes"):
        checks.check(TrainingConfig(optimizer="adamw_8bit", processes=3, lora=adapter), model)


def test_shapes_are_those_of_the_adapter_that_is_made():
    for targets in ("all-linear", ["q_proj", "layers.1.mlp.up_proj"]):
        settings, model = LoraConfig(rank=3, alpha=3, target_modules=targets), make_policy().model
        expected = dict(lora.shapes(model, settings))
        lora.add(model, settings, 0)
        made = {name: tuple(weight.shape) for name, weight in lora.weights(model).items()}
        assert {f"{name}.default.weight": shape for name, shape in expected.items()} == made
