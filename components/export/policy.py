"""A run's policy as files: base and adapter added up, in the type of weights that is wanted, with a model card."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from components.config.errors import UserError
from components.export import facts
from components.policy import findings
from components.policy.files import ADAPTER
from components.runtime.scratch import scratch
from components.runtime.terminal import waiting
from components.stages import runs
from components.store import Manifest, Store, open_store

if TYPE_CHECKING:
    from components.export.hub import Hub
    from components.export.metadata import Told


class ExportError(UserError):
    """A directory that no policy can be exported to."""


DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ARTIFACTS = ("policy", "store_root")
ARM = re.compile(r"(?P<run>CompareFlow/[^/]+)/(?P<arm>[^/]+)/(?P<seed>[0-9]{1,18})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CardOptions:
    """What the model card tells beside the run's own figures."""

    name: str | None = None  # of the model; None: the directory's
    license: str | None = None  # None: the base model's, where it is known
    examples: int = 0  # held-out prompts with answers
    hub: Hub | None = None  # which the card is for


def export(
    pathspec: str,
    directory: Path,
    *,
    iteration: int | Literal["last"] | None = None,
    dtype: str | None = None,
    card: CardOptions | None = None,
) -> Path:
    """Writes a policy of the run `pathspec`, "FLOW/RUN", into `directory` and returns it.

    The directory is made if need be. Metaflow's namespace becomes None: the run may be another user's. A run without
    the artifacts that a model card tells of, as WindFlow's all have, gets none, which the log says.

    Args:
        pathspec: the run; one that has finished unless an iteration is named. "CompareFlow/RUN/ARM/SEED" is an arm of
            a comparison.
        directory: new or empty.
        iteration: the policy after it, counted as in `history`, 0 for the base; "last": after the last whole one. None:
            the final one.
        dtype: "fp32", "bf16" or "fp16", of the weights; None: as the base model's files have them.
        card: what README.md tells beside the run's figures.

    Raises:
        ExportError: a directory that is not empty; a card for the hub of a run that has none.
        RunError: a run that does not exist, has not finished or has no such policy.
        StoreError: a file of the policy is missing or damaged.
        PushError: the card's hub does not answer.
    """
    options = card or CardOptions()
    data, compared = _found(pathspec, iteration)
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ExportError(f"{directory}: is there already and is not an empty directory. Name a new one.")
    told = _told(data, compared, options, directory) if facts.known(data) else None
    if told is None and options.hub:
        raise ExportError(f"{pathspec}: has no config or history, so it gets no model card. Name a run of WindFlow.")
    with waiting(f"writing the policy of {pathspec}"):
        adapted = _write(data, directory, dtype)
    if told is None:
        logger.warning("%s has no config or history, so it gets no model card.", pathspec)
        return directory
    from components.export import card as cards

    stored = _named_dtype(json.loads((directory / "config.json").read_text("utf-8")))
    known = facts.of(pathspec, data, adapted=adapted, dtype=stored, examples=options.examples, compared=compared)
    cards.write(directory, known, told)
    return directory


def _found(pathspec: str, iteration: int | Literal["last"] | None) -> tuple[Any, facts.Compared | None]:
    """The artifacts with the policy, and the comparison if it is an arm of one."""
    if (arm := ARM.fullmatch(pathspec)) is not None:
        if iteration is not None:
            raise ExportError("--iteration: is for runs of WindFlow. Of a comparison's arm take the final policy.")
        whole = runs.finished(arm["run"], flow="CompareFlow", result="results", artifacts=("results", "reach"))
        data = runs.branch(arm["run"], arm["arm"], int(arm["seed"]), artifacts=ARTIFACTS)
        return data, facts.Compared(arm["arm"], whole.results, whole.reach)
    if iteration is None:
        return runs.finished(pathspec, flow="WindFlow", result="final policy", artifacts=ARTIFACTS), None
    return runs.after(pathspec, None if iteration == "last" else iteration, artifacts=ARTIFACTS), None


def _told(data: Any, compared: facts.Compared | None, options: CardOptions, directory: Path) -> Told:
    from components.export import sources
    from components.export.metadata import Told

    config: Mapping[str, Any] = data.branch_config if compared else data.config
    base = sources.base_on_hub(config)
    on_hub = options.hub.base_license(base) if options.hub and base else {}
    known = {"license": options.license} if options.license else on_hub or sources.local_license(config)
    return Told(options.name or directory.resolve().name, known, base_unknown=on_hub is None)


def _write(data: Any, directory: Path, dtype: str | None) -> bool:
    """Writes the policy; whether it is an adapter, which is added to its base."""
    store = open_store(data.store_root)
    policy: Manifest = {name: blob for name, blob in data.policy.items() if name != findings.FILE}
    adapted = any(name.startswith(f"{ADAPTER}/") for name in policy)
    stored = _dtype(store, policy)
    wanted = DTYPES[dtype] if dtype else _dtype(store, getattr(data, "reference", policy))
    if not adapted and wanted in (None, stored):
        store.get(policy, directory)
        return adapted
    from components.policy import lora  # torch and transformers take seconds to import

    directory.parent.mkdir(parents=True, exist_ok=True)
    with scratch("export", directory.parent) as folder:  # a disk with room for the model
        source = store.get(policy, folder / "policy")
        write = lora.merge if adapted else lora.convert
        write(source, directory, "auto" if wanted is None else wanted)
    return adapted


def _dtype(store: Store, policy: Manifest) -> str | None:
    """The type of a policy's weights as its config names it; None where that names none."""
    if "config.json" not in policy:
        return None
    with TemporaryDirectory() as folder:
        file = store.get({"config.json": policy["config.json"]}, Path(folder) / "config") / "config.json"
        config = json.loads(file.read_text("utf-8"))
    return _named_dtype(config)


def _named_dtype(config: Mapping[str, Any]) -> str | None:
    text = config.get("text_config") or {}
    found: str | None = next((c[n] for c in (config, text) for n in ("dtype", "torch_dtype") if c.get(n)), None)
    return found
