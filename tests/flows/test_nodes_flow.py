"""Runs whose training has two nodes, which Metaflow runs on one machine where there are no pods."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.store import Manifest, open_store
from support.flows.by_stages import undisturbed
from support.flows.flow_home import FLOW, Home, config_of
from support.iterations import assert_close_weights

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

# 16 optimiser steps, each of them saved, at a rate at which rounding does not grow.
TRAINING = {"learning_rate": 1e-4, "batch_size": 1, "micro_batch_size": 1, "checkpoint_steps": 1}
# Whose first node is killed has the preset's card of train, which takes processes of its own.
VICTIMS = {"ubf_control": {}, "ubf_task": {"live_cards": []}}


def changes(**more: Any) -> dict[str, Any]:
    return {"prompts": {"shards": 1}, "training": TRAINING, **more}


def weights(store: Path, policy: Manifest, folder: Path) -> dict[str, torch.Tensor]:
    seen = open_store(str(store)).view(policy, folder / "policy", folder / "cache")
    return load_file(seen / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The policy that one machine trains."""
    folder = tmp_path_factory.mktemp("alone")
    return weights(folder / "store", undisturbed(config_of(changes()), folder / "store").policy, folder)


@pytest.mark.parametrize("victim", ["ubf_control", "ubf_task"])
def test_two_nodes_end_as_one_also_when_one_is_killed(
    tmp_path: Path, wait_for, alone, victim: str, request: pytest.FixtureRequest
) -> None:
    """A killed node fails the run within minutes, and a resume continues from the last saved step."""
    if victim == "ubf_task":
        request.getfixturevalue("every_kill")
    home = Home(tmp_path, changes=changes(training={**TRAINING, "nodes": 2}, **VICTIMS[victim]))
    launcher = launch(home)
    store = open_store(home.store_root("local"))
    wait_for(lambda: any(note.name.startswith("training-") for note in store.notes()), seconds=600)
    [task] = tasks(home, victim)
    os.kill(task, signal.SIGKILL)
    begin = time.monotonic()
    said = launcher.communicate(timeout=180)[0]
    assert launcher.returncode == 1, said
    assert time.monotonic() - begin < 120
    wait_for(lambda: tasks(home, victim) == [], seconds=60)
    failed = (tmp_path / "id").read_text()
    assert f"resume --origin-run-id {failed}" in said

    again = home.flow("local", "resume", "--origin-run-id", failed)
    first, second = home.tasks([failed, again])
    assert "train_1/0" not in first
    assert second["gather_1"]  # cloned
    policy = home.artifacts(again, ["policy"])["policy"]
    assert_close_weights(weights(tmp_path / "wind_store", policy, tmp_path), alone)


def launch(home: Home) -> subprocess.Popen[str]:
    """A run under way, whose number goes into the file `id`."""
    config = str(home.folder / "config.yaml")
    command = [sys.executable, str(FLOW), "--no-pylint", "--config", "config", config, "run", "--run-id-file"]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, str(home.folder / "id")], cwd=home.folder, env=home.env, **streams)


def tasks(home: Home, kind: str) -> list[int]:
    """Process ids of the run's tasks of a kind, by Metaflow's name for the first node or for the others."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
            here = path.with_name("cwd").readlink() == home.folder
        except OSError:  # has ended
            continue
        if here and kind in words:
            found.append(int(path.parent.name))
    return found
