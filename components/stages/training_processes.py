"""Training in several processes, one for each GPU, on this machine or on several, each with a task of its own.

A task starts those of its machine and waits, so it resumes like any other. They read from the store what the task would
have read; the first of all writes. On one machine they meet by a file in a folder that only this user can enter, and
talk over the loopback interface: what torch exchanges at a meeting on the network is neither authenticated nor safe to
unpickle. Machines must meet there, in a network that lets nobody else in, such as that of
infra/kubernetes/wind.yaml.

When one process ends badly, all do: those of its machine are ended here, others find their connections closed or wait
`training.nodes_wait_minutes` in vain.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import torch
from torch import distributed as dist

from components.run_config import RunConfig
from components.runtime.processes import die_with_parent, end_in_order, failed
from components.runtime.progress import Progress
from components.stages.context import Workspace, open_workspace
from components.stages.handover import Node, TrainInput, TrainResult

POLL = 0.5  # seconds
GRACE = 10.0  # seconds to end in when another of the processes has failed
MEETING = timedelta(minutes=30)  # to wait for the others of one machine; torch's own


def train(work: Workspace, given: TrainInput, node: Node) -> TrainResult | None:
    """`stages.train_on` in `training.processes` processes. Raises RuntimeError when they or other nodes' fail."""
    folder = work.new_folder()
    for manifest in filter(None, [given.policy, given.optimizer, *given.shards, *given.scored]):
        work.fetch(manifest)  # once, for all of them
    job = {
        "config": work.config.model_dump(),
        "root": work.store.root,
        "cache": str(work.cache),
        "precision": work.precision,
        "given": asdict(given),
        "meeting": node.meeting or (folder / "meeting").as_uri(),
        "minutes": work.config.training.nodes_wait_minutes if node.count > 1 else None,
    }
    (folder / "job.json").write_text(json.dumps(job))
    progress, settings = work.progress("train"), work.config.training
    with ExitStack() as running:
        group = [
            running.enter_context(_started(folder, place, work.threads)) for place in _places(node, settings.processes)
        ]
        shown, lost = 0, False
        while not _ended(group) and not lost:
            time.sleep(POLL)
            shown = _show(folder, progress, shown)
            lost = any(failed(task) for task in node.tasks)
    if lost or any(process.returncode for process in group):
        raise RuntimeError(
            f"training in {settings.world} processes failed, see above"
            f"{', also what other nodes say' if node.count > 1 else ''}. If memory ran out, lower "
            "training.micro_batch_size: it is not halved here, since all processes would have to agree."
        )
    return TrainResult(**json.loads((folder / "trained.json").read_text())) if node.index == 0 else None


def _places(node: Node, processes: int) -> list[dict[str, str]]:
    """What each process of a node has in its environment to know its place among all."""
    first, world = node.index * processes, node.count * processes
    return [
        {"RANK": str(first + local), "LOCAL_RANK": str(local), "WORLD_SIZE": str(world)} | _interface(node)
        for local in range(processes)
    ]


def _interface(node: Node) -> dict[str, str]:
    """The loopback interface for processes on one machine; others find their own."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is None or not (node.meeting or "file:").startswith("file:"):
        return {}
    return {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}


def _show(folder: Path, progress: Progress, shown: int) -> int:
    """Passes on what the first process has said of its progress since; how many lines it has said."""
    path = folder / "progress.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines[shown:]:
        done, total, figures = json.loads(line)
        progress(done, total, **figures)
    return len(lines)


@contextmanager
def _started(folder: Path, place: Mapping[str, str], threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """One of the processes; it does not outlive the block."""
    root = str(Path(__file__).parents[2])  # where `components` lies
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, given)]),  # an empty entry is the working directory
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": str(threads),
        **place,
    }
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
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    _meet("nccl" if cuda else "gloo", job["meeting"], job["minutes"])
    try:
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


def _meet(backend: str, meeting: str, minutes: float | None) -> None:
    """Joins the group of all processes, at a URL; each step of that and each exchange may take so many minutes."""
    timeout, world = None if minutes is None else timedelta(minutes=minutes), int(os.environ["WORLD_SIZE"])
    place: dict[str, Any] = {"init_method": meeting}
    if (url := urlsplit(meeting)).scheme == "file":
        # torch takes the path as the URL spells it: with a space, "%20", it names a file that cannot be made, and
        # torch tries without end.
        store = dist.FileStore(os.fsdecode(unquote_to_bytes(url.path)), world)  # type: ignore[attr-defined]
        store.set_timeout(timeout or MEETING)
        place = {"store": store}
    dist.init_process_group(backend, timeout=timeout, rank=int(os.environ["RANK"]), world_size=world, **place)


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
