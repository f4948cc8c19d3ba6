"""What a run on the local datastore ends with that nobody disturbs: done once for all of pytest's workers."""

from __future__ import annotations

import fcntl
import pickle
from pathlib import Path
from typing import Any

from support.flows.flow_home import Home

FOUR_STEPS = {"training": {"batch_size": 4}}  # of the optimiser, as many as tests speak of


def ends(shared: Path, algorithm: str) -> dict[str, Any]:
    """Its artifacts, from `shared` if they are there. Manifests hold hashes of files: they are every datastore's."""
    folder = shared / f"undisturbed-{algorithm}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "end").exists():
            home = Home(folder, changes=FOUR_STEPS | {"algorithm": {"name": algorithm}})
            (folder / "end").write_bytes(pickle.dumps(home.artifacts(home.flow("local", "run"))))
    found: dict[str, Any] = pickle.loads((folder / "end").read_bytes())
    return found
