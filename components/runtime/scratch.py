"""Folders to work in, gone with the block; those of processes that were killed go when the next one is made."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.runtime import processes

PREFIX = "wind-"
OWNER = "owner.json"  # in each folder: whose it is
MEETINGS = f"{PREFIX}meeting-"  # where the nodes of a training meet
UNOWNED = 24 * 3600.0  # seconds after which one without an owner belongs to nobody


@contextmanager
def scratch(kind: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder `wind-KIND-…` in `parent`, by default in TMPDIR."""
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned(parent)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{kind}-", dir=parent) as name:
        own(Path(name))
        yield Path(name)


def own(folder: Path) -> None:
    """Notes that a folder `wind-…` is this process's, and abandoned when that has ended."""
    (folder / OWNER).write_text(json.dumps(processes.identity()))


def remove_abandoned(parent: Path) -> None:
    """Removes such folders of this user whose processes have ended; one of which that is not known stays.

    Of nobody are, after a day, empty ones, those whose owner was not written to the end, and those in which the nodes
    of a training met: another than the first may have begun one.
    """
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process removes it, too
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            owned = (folder / OWNER).exists()
            owner = _owner(folder) if owned else None
            if owner is not None:
                if processes.state(owner) == "ended":
                    shutil.rmtree(folder, ignore_errors=True)
            elif time.time() - found.st_mtime <= UNOWNED:
                continue
            elif owned or folder.name.startswith(MEETINGS):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.rmdir()  # killed before it was named; nothing happens if there is anything in it


def _owner(folder: Path) -> dict[str, object] | None:
    """What its owner wrote; None if that was not written to the end or is nothing that an owner writes."""
    try:
        owner = json.loads((folder / OWNER).read_text())
    except (ValueError, RecursionError):  # also of what is no UTF-8
        return None
    return owner if isinstance(owner, dict) and {"machine", "pid"} <= owner.keys() else None
