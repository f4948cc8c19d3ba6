"""A saved state on machines with several processes each: brought once to every machine, read there by all of them."""

from __future__ import annotations

import os
import sys

from components.store import open_store
from components.training.checkpoints import Checkpoints
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import KEY, SETTINGS
from support.forked import forked
from support.models.tiny import make_policy

WORKER = """
import sys
from pathlib import Path
from torch import distributed as dist
from components.store.local import LocalStore
from components.training.checkpoints import Checkpoints
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import KEY, SETTINGS
from support.models.tiny import make_policy

class Counted(LocalStore):
    def get(self, manifest, directory):
        with Path(folder, "brought").open("a") as file:
            print(rank, file=file)
        return super().get(manifest, directory)

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=4)
policy = make_policy()
state = TrainingState(policy, make_optimizer(policy, SETTINGS), 4)
machine = Path(folder, f"machine-{rank // 2}")
Checkpoints(Counted(f"{folder}/store"), KEY, SETTINGS, machine).restore(state)
dist.barrier()
Path(folder, f"done-{rank}").write_text(f"{state.done} {len(list(machine.iterdir()))}")
dist.destroy_process_group()
"""


def test_each_machine_brings_it_once_and_keeps_no_copy(tmp_path):
    """Two machines of two processes: of the four, the first and the third."""
    policy = make_policy()
    saved = TrainingState(policy, make_optimizer(policy, SETTINGS), 4, done=3)
    (tmp_path / "saving").mkdir()
    Checkpoints(open_store(str(tmp_path / "store")), KEY, SETTINGS, tmp_path / "saving").save(saved)
    group = [
        forked(
            [sys.executable, "-c", WORKER, str(tmp_path), str(rank)],
            env={**os.environ, "LOCAL_RANK": str(rank % 2)},
        )
        for rank in range(4)
    ]
    assert [process.wait(120) for process in group] == [0] * 4
    assert sorted((tmp_path / "brought").read_text().split()) == ["0", "2"]
    assert [(tmp_path / f"done-{rank}").read_text() for rank in range(4)] == ["3 0"] * 4
