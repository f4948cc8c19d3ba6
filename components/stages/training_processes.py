"""Training in several processes on one machine, one for each GPU, inside an ordinary task.

The task starts them and waits, so it resumes like any other. They read from the store what the task would have read;
the first of them writes. They meet by a file in a folder that only this user can enter, and talk over the loopback
interface: what torch exchanges at a meeting on the network is neither authenticated nor safe to unpickle.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from components.run_config import RunConfig
from components.runtime.processes import die_with_parent, end_in_order
from components.runtime.progress import Progress
from components.stages.context import Workspace, open_workspace
from components.stages.handover import TrainInput, TrainResult

POLL = 0.5  # seconds
GRACE = 10.0  # seconds to end in when another of the processes has failed


def train(work: Workspace, given: TrainInput) -> TrainResult:
    """`stages.train` in `training.processes` processes. Raises RuntimeError when they fail."""
    folder = work.new_folder()
    for manifest in filter(None, [given.policy, given.optimizer, *given.shards, *given.scored]):
        work.fetch(manifest)  # once, for all of them
    job = {
        "config": work.config.model_dump(),
        "root": work.store.root,
        "cache": str(work.cache),
        "precision": work.precision,
        "given": asdict(given),
    }
    (folder / "job.json").write_text(json.dumps(job))
    progress, count = work.progress("train"), work.config.training.processes
    with ExitStack() as running:
        group = [running.enter_context(_started(folder, rank, count, work.threads)) for rank in range(count)]
        shown = 0
        while not _ended(group):
            time.sleep(POLL)
            shown = _show(folder, progress, shown)
    if any(process.returncode for process in group):
        raise RuntimeError(
            f"training in {count} processes failed, see above. If memory ran out, lower "
            "training.micro_batch_size: it is not halved here, since all processes would have to agree."
        )
    return TrainResult(**json.loads((folder / "trained.json").read_text()))


def _show(folder: Path, progress: Progress, shown: int) -> int:
    """Passes on what the first process has said of its progress since; how many lines it has said."""
    path = folder / "progress.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[shown:]:
        done, total, figures = json.loads(line)
        progress(done, total, **figures)
    return len(lines)


@contextmanager
def _started(folder: Path, rank: int, count: int, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """One of the processes; it does not outlive the block."""
    root = str(Path(__file__).parents[2])  # where `components` lies
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, given)]),  # an empty entry is the working directory
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": str(threads),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
    }
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback:
        environment |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    # -P: the working directory is no place to import from
    command = [sys.executable, "-P", "-m", __name__, str(folder), str(os.getpid())]
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                process.kill()


def _ended(group: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether all have ended, or one has failed: then the others wait for it in vain."""
    states = [process.poll() for process in group]
    return any(states) or None not in states


def work_in_group(folder: Path) -> None:
    """One of the processes."""
    from components.stages import update

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    try:
        job: dict[str, Any] = json.loads((folder / "job.json").read_text())
        config = RunConfig.model_validate(job["config"])
        with open_workspace(
            config,
            job["root"],
            "train",
            precision=job["precision"],
            progress=lambda _: _writer(folder),
            cache=Path(job["cache"]),
        ) as work:
            trained = update.train_here(work, TrainInput(**job["given"]))
        if trained is not None:
            (folder / "trained.json").write_text(json.dumps(asdict(trained)))
    finally:
        dist.destroy_process_group()


def _writer(folder: Path) -> Progress:
    def progress(done: int, total: int, **figures: float) -> None:
        if dist.get_rank() == 0:
            with (folder / "progress.jsonl").open("a") as file:
                file.write(json.dumps([done, total, figures]) + "\n")

    return progress


if __name__ == "__main__":
    end_in_order()
    die_with_parent(int(sys.argv[2]))
    work_in_group(Path(sys.argv[1]))
