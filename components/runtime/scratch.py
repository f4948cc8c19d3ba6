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
UNOWNED = 24 * 3600.0  # seconds after which one that is empty belongs to nobody


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
    """Removes such folders of this user whose processes have ended; one of which that is not known stays."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):  # another process removes it, too, or it is none of ours
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            if (folder / OWNER).exists():
                if processes.state(json.loads((folder / OWNER).read_text())) == "ended":
                    shutil.rmtree(folder, ignore_errors=True)
            elif time.time() - found.st_mtime > UNOWNED:
                folder.rmdir()  # killed before it was named; nothing happens if there is anything in it
