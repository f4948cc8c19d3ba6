"""Training in several processes on one machine, one for each GPU, inside an ordinary task.

The task starts them with torch.distributed.run and waits, so it resumes like any other. They read from the store what
the task would have read; the first of them writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from components.config import RunConfig
from components.processes import die_with_parent
from components.progress import Progress
from components.store import Manifest
from components.training.update import Before, Trained
from components.workspace import Workspace, open_workspace

POLL = 0.5  # seconds


def train(work: Workspace, before: Before, shards: Sequence[Manifest], scored: Sequence[Manifest]) -> Trained:
    """`update.train` in `training.processes` processes. Raises RuntimeError when they fail."""
    folder = work.new_folder()
    job = {
        "config": work.config.model_dump(),
        "root": work.store.root,
        "precision": work.precision,
        "before": asdict(before),
        "shards": list(shards),
        "scored": list(scored),
    }
    (folder / "job.json").write_text(json.dumps(job))
    progress = work.progress("train")
    command = [sys.executable, "-m", __name__, str(folder), str(work.config.training.processes), str(os.getpid())]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(work.threads)}) as group:
        shown = 0
        while group.poll() is None:
            time.sleep(POLL)
            shown = _show(folder, progress, shown)
    if group.returncode:
        raise RuntimeError(
            f"training in {work.config.training.processes} processes failed, see above. If memory ran out, lower "
            "training.micro_batch_size: it is not halved here, since all processes would have to agree."
        )
    return Trained(**json.loads((folder / "trained.json").read_text()))


def _show(folder: Path, progress: Progress, shown: int) -> int:
    """Passes on what the first process has said of its progress since; how many lines it has said."""
    path = folder / "progress.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[shown:]:
        done, total, figures = json.loads(line)
        progress(done, total, **figures)
    return len(lines)


def launch(folder: Path, processes: int, parent: int) -> None:
    """Starts the processes, which end with this one, as this one does with the task."""
    from torch.distributed import run

    die_with_parent(parent)
    run.main(["--standalone", f"--nproc-per-node={processes}", "-m", __spec__.name, str(folder)])


def work_in_group(folder: Path) -> None:
    """One of the processes."""
    from components.training import update

    die_with_parent()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        job: dict[str, Any] = json.loads((folder / "job.json").read_text())
        config = RunConfig.model_validate(job["config"])
        with open_workspace(
            config, job["root"], "train", precision=job["precision"], progress=lambda _: _writer(folder)
        ) as work:
            trained = update.train_here(work, Before(**job["before"]), job["shards"], job["scored"])
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
    if len(sys.argv) > 2:
        launch(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        work_in_group(Path(sys.argv[1]))
