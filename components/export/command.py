"""The command `wind export`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.paths import argument
from components.export.policy import DTYPES, CardOptions, ExportError, export
from components.runtime.terminal import Parser, command, plain_errors, waiting

if TYPE_CHECKING:
    from components.export.hub import Hub


@command
def main(arguments: list[str] | None = None, prog: str = "wind export") -> None:
    """The command line; see `plain_errors`."""
    given = _parser(prog).parse_args(arguments)
    directory = given.directory or Path(re.sub(r"^[^/]*/", "", given.run).replace("/", "-"))
    with plain_errors():
        hub = _hub(given)
    with plain_errors(written=directory):
        options = CardOptions(given.push, given.license, given.examples, hub)
        export(given.run, directory, iteration=given.iteration, dtype=given.dtype, card=options)
    which = "final policy" if given.iteration is None else f"policy after iteration {given.iteration}"
    if given.iteration == "last":
        which = "policy after the last whole iteration"
    print(
        f"The {which} of {given.run} is in {directory}.{_weights(directory, given.dtype)} It loads as any other:\n\n"
        f"{load_snippet(directory)}"
    )
    if hub is not None:
        with plain_errors(), waiting("sending it to the hub"):
            address = hub.push(directory, f"The {which} of {given.run}")
        print(f"\nIt is on the hub: {address}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog, description="Writes a policy of a run as a plain Hugging Face directory with a model card."
    )
    parser.add_argument(
        "run", metavar="FLOW/RUN", help="such as WindFlow/1795473051411960, or CompareFlow/RUN/ARM/SEED for an arm"
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", type=argument, help="new or empty; default: ./RUN")
    parser.add_argument(
        "--iteration",
        type=_iteration,
        metavar="N",
        help="the policy after it, also of a run that failed: as numbered in history, 0 for the base, or `last`; "
        "default: a finished run's final one",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; default: as the base model's files have them")
    parser.add_argument("--license", metavar="ID", help="for the model card; default: the base model's, where known")
    parser.add_argument(
        "--examples",
        type=_count,
        default=0,
        metavar="N",
        help="held-out prompts with answers in the model card, of a final policy; default: 0, for they may be private",
    )
    pushed = parser.add_argument_group("hub", "with a token in HF_TOKEN or of `hf auth login`")
    pushed.add_argument("--push", metavar="ORG/NAME", help="put it on the Hugging Face hub as well")
    pushed.add_argument("--private", action="store_true", help="in a private repository")
    pushed.add_argument("--revision", metavar="BRANCH", help="made if need be; default: main")
    return parser


def _hub(given: argparse.Namespace) -> Hub | None:
    """The hub to push to, which has taken the token: all that may be wrong with that is told before the work."""
    if given.push is None:
        if alone := [name for name in ("private", "revision") if getattr(given, name)]:
            raise ExportError(f"--{alone[0]}: is for the hub. Name a repository with --push, or leave it out.")
        return None
    from components.export import hub

    with waiting("asking the hub"):
        return hub.ready(hub.Target(given.push, given.private, given.revision))


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _iteration(text: str) -> int | str:
    if text != "last" and not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of `history` nor `last`")
    return text if text == "last" else int(text)


def _weights(directory: Path, asked: str | None) -> str:
    """What type the exported weights have, where their config says so."""
    config = json.loads((directory / "config.json").read_text("utf-8"))
    found = config.get("dtype") or config.get("torch_dtype")
    return f" Its weights are {found}{'' if asked else ', as those of the base model'}." if found else ""


def load_snippet(directory: Path) -> str:
    """Python that loads an exported policy."""
    code = ", trust_remote_code=True" if any(directory.glob("*.py")) else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(directory)!r}{code})\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(directory)!r}{code})"
    )
