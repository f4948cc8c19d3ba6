"""Unfinished training in the store, so that a retry or a resume of a killed task loses minutes.

The last saved state is found by a key made of all that determines the training: policy and optimiser to begin with,
data, settings, seed, number of threads, and the code. So any later attempt at the same work finds it, whatever run it
belongs to, and no other work does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from components.config.errors import BlobError, NoteError
from components.config.sections import TrainingConfig
from components.store import Manifest, Store
from components.store.note_kinds import content_of
from components.training import sharding
from components.training.leftovers import remove, same_work
from components.training.state import TrainingState

FILE = "training.safetensors"
LIBRARIES = ("torch", "transformers", "numpy", "peft", "bitsandbytes")  # those that compute
ATTEMPT, SECONDS = "attempt", "seconds"  # of the file's metadata

logger = logging.getLogger(__name__)


def training_key(**inputs: Any) -> str:
    """Name of the state of a training with these inputs, plain data all of them, under this code."""
    text = json.dumps(inputs, sort_keys=True)
    return f"training-{hashlib.sha256(text.encode()).hexdigest()}-{code_version()}"


@cache
def code_version() -> str:
    """A hash of all sources of `components` and of the libraries' versions."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(" ".join(map(_version, LIBRARIES)).encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"


@dataclass
class Checkpoints:
    """Where an attempt at a training saves its state, and finds that of an earlier attempt."""

    store: Store
    key: str
    settings: TrainingConfig
    scratch: Path  # a folder that the processes of a machine share, for this alone
    seconds_before: float = 0.0  # that earlier attempts spent up to the state restored
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._begun = self._saved = self.clock()
        self._latest: Manifest | None = None  # the state that this attempt restored or saved last

    def restore(self, state: TrainingState) -> None:
        """Takes over the last state that an attempt saved, if there is one.

        One that is missing or damaged is reported and not used: training then begins anew, with the same result.
        Of several processes, all take the one that the first has found; the first of each machine brings it there.
        """
        while (manifest := self._found()) is not None:
            problem = ""
            if sharding.first_of_machine():
                try:
                    self.store.get(manifest, self.scratch)
                except BlobError as error:
                    problem = str(error)
            if sharding.in_any(bool(problem)):  # all wait here for the file
                if self._found() != manifest:
                    continue  # another attempt, still running, has just put a later one in its place
                # Only the process that could not bring it here knows why, on one machine of several.
                why = problem or "Another process or machine could not read it, and its own line says why."
                logger.warning("the state of unfinished training cannot be used, so it begins anew. %s", why)
                return
            self.seconds_before = float(state.restore(self.scratch / FILE)[SECONDS])
            sharding.in_any(False)  # all have read it then
            if sharding.first_of_machine():
                (self.scratch / FILE).unlink()
            self._latest = manifest
            logger.warning("training continues after optimiser step %d, which an earlier attempt saved", state.done)
            return
        self._tell_of_other_code()

    def _tell_of_other_code(self) -> None:
        """Says why work that was saved is not continued where only the code differs: who resumes expects it to be."""
        if sharding.rank() == 0 and any(key != self.key for key in same_work(self.store, self.key)):
            logger.warning(
                "training begins anew: its unfinished state was saved by other code of `components` or other versions "
                "of %s. To continue it, go back to those and resume again",
                ", ".join(LIBRARIES),
            )

    def _found(self) -> Manifest | None:
        """Files of the last state that an attempt saved: another one, still running, may save a later one any time."""
        found = None
        if sharding.rank() == 0:
            try:
                found = content_of(self.store, self.key)
            except NoteError as error:
                logger.warning("training begins anew, and replaces the note of its unfinished state. %s", error)
        manifest: Manifest | None = json.loads(sharding.as_the_first(json.dumps(found)))
        return manifest

    def step_done(self, state: TrainingState) -> None:
        """Saves the state if it is time."""
        steps, seconds = self.settings.checkpoint_steps, 60 * self.settings.checkpoint_minutes
        due = (steps is not None and state.done % steps == 0) or self.clock() - self._saved >= seconds
        if sharding.agreed(due):
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Saves the state in the place of the one before."""
        # The attempt's name makes the file unlike any other, so that none that is in use is removed below.
        state.save(self.scratch / FILE, **{ATTEMPT: uuid.uuid4().hex, SECONDS: str(self.seconds)})
        if sharding.rank() > 0:
            return
        manifest = self.store.put_file(self.scratch / FILE)
        self.store.write_note(self.key, json.dumps(manifest))
        remove(self.store, self._latest)
        self._latest, self._saved = manifest, self.clock()

    @property
    def seconds(self) -> float:
        """Time spent on this training so far, by all attempts, but for what was done and not saved."""
        return self.seconds_before + self.clock() - self._begun
