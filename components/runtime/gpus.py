"""Which of this machine's GPUs a task has: tasks that run side by side must not take the same one.

A cluster gives each task its own. On one machine, shards and a comparison's arms would all begin on the first GPU, of
which an engine takes nearly all the memory.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from components.config.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS = Path(tempfile.gettempdir()) / f"wind-gpus-{os.getuid()}"
REMEDY = "Have it removed, or set TMPDIR to a folder that only you can write to."
PAUSE = 0.5  # seconds between two looks for a GPU that has become free


def visible() -> list[str]:
    """Names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES.

    Counts without starting CUDA, which would read the variable once and for all.
    """
    import torch

    given = os.environ.get(VISIBLE)
    names = [str(i) for i in range(torch.cuda.device_count())]
    return names if given is None else [name.strip() for name in given.split(",")][: len(names)]


@contextmanager
def claim(names: Sequence[str], count: int, tell: Callable[[str], object] = print) -> Iterator[None]:
    """Keeps `count` of the GPUs to this process, and has CUDA see no other; first waits until so many are free.

    Call it before CUDA starts. A claim ends with its process, however that ends.

    Args:
        names: what `visible` gave. With none there is nothing to claim.
        count: GPUs.
        tell: is told once that this process waits.

    Raises ConfigError when there are never so many.
    """
    if not names:
        yield
        return
    if count > len(names):
        raise ConfigError(
            f"resources: the step asks for {count} GPUs, and this machine shows {len(names)}. Lower its gpu "
            f"(training.processes, tensor_parallel), or check {VISIBLE}."
        )
    with ExitStack() as held:
        claimed = _locked(names, count, held)
        if len(claimed) < count:
            tell(f"Waits until {count} of {len(names)} GPUs are free of other tasks.")
        while len(claimed) < count:
            time.sleep(PAUSE)
            claimed = _locked(names, count, held)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(claimed)
        try:
            yield
        finally:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def _locked(names: Sequence[str], count: int, held: ExitStack) -> list[str]:
    """The first `count` free GPUs, locked until `held` closes; none if there are fewer: who waits must not hold any."""
    folder = _own_folder()
    with ExitStack() as trial:
        trial.callback(os.close, folder)
        free: list[str] = []
        for name in names:
            lock = _open(name.replace("/", "-"), folder)
            trial.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            free.append(name)
            if len(free) == count:
                held.enter_context(trial.pop_all())
                return free
    return []


def _own_folder() -> int:
    """The folder of locks, open: this user's and closed to others, who could else put links to files into it.

    Raises ConfigError if somebody else has made it, or a link or file in its place.
    """
    with suppress(FileExistsError):
        LOCKS.mkdir(mode=0o700)
    with _refused():
        folder = os.open(LOCKS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if os.fstat(folder).st_uid != os.getuid():
        os.close(folder)
        raise ConfigError(f"{LOCKS}: belongs to another user. {REMEDY}")
    os.fchmod(folder, 0o700)  # an earlier version left it open
    return folder


def _open(name: str, folder: int) -> int:
    """The file of a lock, never another file by a link, and never changed."""
    with _refused():
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{LOCKS}: cannot hold the locks of GPUs ({error}). {REMEDY}") from error
