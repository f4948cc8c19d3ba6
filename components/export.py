"""Writes the final policy of a finished run as a plain Hugging Face directory; an adapter is merged into its base.

    python -m components.export WindFlow/RUN [DIR]

Run it where the flow ran: Metaflow looks for runs in `.metaflow` of the working directory or one above it, or in the
datastore that your Metaflow is configured for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from components.errors import UserError
from components.policy_files import ADAPTER
from components.runs import finished
from components.scratch import scratch
from components.store import Manifest, open_store


class ExportError(UserError):
    """A directory that no policy can be exported to."""


def export(pathspec: str, directory: Path) -> Path:
    """Writes the final policy of the run `pathspec`, "FLOW/RUN", into `directory` and returns it.

    The directory is made if need be. Metaflow's namespace becomes None: the run may be another user's.

    Raises ExportError for a directory that is not empty; RunError for a run that does not exist, has not finished
    or has no policy; StoreError when a file of the policy is missing or damaged.
    """
    data = finished(pathspec, flow="WindFlow", result="final policy", artifacts=("policy", "store_root"))
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ExportError(f"{directory}: is there already and is not an empty directory. Name a new one.")
    policy: Manifest = data.policy
    store = open_store(data.store_root)
    if not any(name.startswith(f"{ADAPTER}/") for name in policy):
        return store.get(policy, directory)
    from components import adapters  # torch and transformers take seconds to import

    directory.parent.mkdir(parents=True, exist_ok=True)
    with scratch("export", directory.parent) as folder:  # a disk with room for the model
        return adapters.merge(store.get(policy, folder / "policy"), directory)


def load_snippet(directory: Path) -> str:
    """Python that loads an exported policy."""
    code = ", trust_remote_code=True" if any(directory.glob("*.py")) else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(directory)!r}{code})\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(directory)!r}{code})"
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line; a UserError ends it with its message and status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m components.export",
        description="Writes the final policy of a finished run as a plain Hugging Face directory.",
    )
    parser.add_argument("run", metavar="FLOW/RUN", help="such as WindFlow/1795473051411960")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, help="new or empty; default: ./RUN")
    given = parser.parse_args(arguments)
    directory = given.directory or Path(given.run.rpartition("/")[2])
    try:
        export(given.run, directory)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"The final policy of {given.run} is in {directory}. It loads as any other:\n\n{load_snippet(directory)}")


if __name__ == "__main__":
    main()
