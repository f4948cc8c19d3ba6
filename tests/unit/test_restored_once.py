"""A saved state on machines with several processes each: brought once to every machine, read there by all of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from components.store import open_store
from components.training.checkpoints import Checkpoints
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import KEY, SETTINGS
from support.forked import forked
from support.models.tiny import make_policy

WORKER = """
import logging
import os
import sys
from pathlib import Path
from torch import distributed as dist
from components.config.errors import BlobError
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
        if os.environ.get("DAMAGED") == str(rank):
            raise BlobError("bytes differ")
        return super().get(manifest, directory)

folder, rank = sys.argv[1], int(sys.argv[2])
logging.basicConfig(filename=f"{folder}/said-{rank}", force=True)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=4)
policy = make_policy()
state = TrainingState(policy, make_optimizer(policy, SETTINGS), 4)
machine = Path(folder, f"machine-{rank // 2}")
machine.mkdir(exist_ok=True)
Checkpoints(Counted(f"{folder}/store"), KEY, SETTINGS, machine).restore(state)
dist.barrier()
Path(folder, f"done-{rank}").write_text(f"{state.done} {len(list(machine.iterdir()))}")
dist.destroy_process_group()
"""


def restored(folder: Path, **environment: str) -> list[str]:
    """What four processes have restored, the first two on one machine, the others on another."""
    policy = make_policy()
    saved = TrainingState(policy, make_optimizer(policy, SETTINGS), 4, done=3)
    (folder / "saving").mkdir()
    Checkpoints(open_store(str(folder / "store")), KEY, SETTINGS, folder / "saving").save(saved)
    group = [
        forked(
            [sys.executable, "-c", WORKER, str(folder), str(rank)],
            env={**os.environ, **environment, "LOCAL_RANK": str(rank % 2)},
        )
        for rank in range(4)
    ]
    assert [process.wait(120) for process in group] == [0] * 4
    return [(folder / f"done-{rank}").read_text() for rank in range(4)]


def test_each_machine_brings_it_once_and_keeps_no_copy(tmp_path):
    """Two machines of two processes: of the four, the first and the third."""
    assert restored(tmp_path) == ["3 0"] * 4
    assert sorted((tmp_path / "brought").read_text().split()) == ["0", "2"]


def test_what_one_machine_cannot_read_is_used_by_none_and_each_says_why(tmp_path):
    assert [text.split()[0] for text in restored(tmp_path, DAMAGED="2")] == ["0"] * 4
    said = [(tmp_path / f"said-{rank}").read_text().strip().partition("begins anew. ")[2] for rank in range(4)]
    other = "Another process or machine could not read it, and its own line says why."
    assert said == [other, other, "bytes differ", other]
