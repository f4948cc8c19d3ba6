"""Writes a policy of a run as a plain Hugging Face directory; an adapter is merged into its base.

    wind export WindFlow/RUN [DIR] [--iteration N|last] [--dtype fp32|bf16|fp16]

Run it where the flow ran: Metaflow looks for runs in `.metaflow` of the working directory or one above it, or in the
datastore that your Metaflow is configured for.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from components.config.errors import UserError
from components.config.paths import argument
from components.policy import findings
from components.policy.files import ADAPTER
from components.runtime.scratch import scratch
from components.runtime.terminal import plain_errors
from components.stages import runs
from components.store import Manifest, Store, open_store


class ExportError(UserError):
    """A directory that no policy can be exported to."""


DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ARTIFACTS = ("policy", "store_root")


def export(
    pathspec: str, directory: Path, *, iteration: int | Literal["last"] | None = None, dtype: str | None = None
) -> Path:
    """Writes a policy of the run `pathspec`, "FLOW/RUN", into `directory` and returns it.

    The directory is made if need be. Metaflow's namespace becomes None: the run may be another user's.

    Args:
        pathspec: the run; one that has finished unless an iteration is named.
        directory: new or empty.
        iteration: the policy after it, counted as in `history`, 0 for the base; "last": after the last whole one. None:
            the final one.
        dtype: "fp32", "bf16" or "fp16", of the weights; None: as the base model's files have them.

    Raises:
        ExportError: a directory that is not empty.
        RunError: a run that does not exist, has not finished or has no such policy.
        StoreError: a file of the policy is missing or damaged.
    """
    if iteration is None:
        data = runs.finished(pathspec, flow="WindFlow", result="final policy", artifacts=ARTIFACTS)
    else:
        data = runs.after(pathspec, None if iteration == "last" else iteration, artifacts=ARTIFACTS)
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ExportError(f"{directory}: is there already and is not an empty directory. Name a new one.")
    store = open_store(data.store_root)
    policy: Manifest = {name: blob for name, blob in data.policy.items() if name != findings.FILE}
    adapted = any(name.startswith(f"{ADAPTER}/") for name in policy)
    stored = _dtype(store, policy)
    wanted = DTYPES[dtype] if dtype else _dtype(store, getattr(data, "reference", policy))
    if not adapted and wanted in (None, stored):
        return store.get(policy, directory)
    from components.policy import lora  # torch and transformers take seconds to import

    directory.parent.mkdir(parents=True, exist_ok=True)
    with scratch("export", directory.parent) as folder:  # a disk with room for the model
        source = store.get(policy, folder / "policy")
        write = lora.merge if adapted else lora.convert
        return write(source, directory, "auto" if wanted is None else wanted)


def _dtype(store: Store, policy: Manifest) -> str | None:
    """The type of a policy's weights as its config names it; None where that names none."""
    if "config.json" not in policy:
        return None
    with TemporaryDirectory() as folder:
        file = store.get({"config.json": policy["config.json"]}, Path(folder) / "config") / "config.json"
        config = json.loads(file.read_text("utf-8"))
    text = config.get("text_config") or {}
    found: str | None = next((c[n] for c in (config, text) for n in ("dtype", "torch_dtype") if c.get(n)), None)
    return found


def load_snippet(directory: Path) -> str:
    """Python that loads an exported policy."""
    code = ", trust_remote_code=True" if any(directory.glob("*.py")) else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(directory)!r}{code})\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(directory)!r}{code})"
    )


def main(arguments: list[str] | None = None, prog: str = "wind export") -> None:
    """The command line; see `plain_errors`."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Writes a policy of a run as a plain Hugging Face directory."
    )
    parser.add_argument("run", metavar="FLOW/RUN", help="such as WindFlow/1795473051411960")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=argument, help="new or empty; default: ./RUN")
    parser.add_argument(
        "--iteration",
        type=_iteration,
        metavar="N",
        help="the policy after it, also of a run that failed: as numbered in history, 0 for the base, or `last`; "
        "default: a finished run's final one",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; default: as the base model's files have them")
    given = parser.parse_args(arguments)
    directory = given.directory or Path(given.run.rpartition("/")[2])
    with plain_errors(written=directory):
        export(given.run, directory, iteration=given.iteration, dtype=given.dtype)
    which = "final policy" if given.iteration is None else f"policy after iteration {given.iteration}"
    if given.iteration == "last":
        which = "policy after the last whole iteration"
    print(
        f"The {which} of {given.run} is in {directory}.{_weights(directory, given.dtype)} It loads as any other:\n\n"
        f"{load_snippet(directory)}"
    )


def _iteration(text: str) -> int | str:
    if text != "last" and not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of `history` nor `last`")
    return text if text == "last" else int(text)


def _weights(directory: Path, asked: str | None) -> str:
    """What type the exported weights have, where their config says so."""
    config = json.loads((directory / "config.json").read_text("utf-8"))
    found = config.get("dtype") or config.get("torch_dtype")
    return f" Its weights are {found}{'' if asked else ', as those of the base model'}." if found else ""


if __name__ == "__main__":
    main()
