"""Writes every prompt and response of a run into one HTML file.

    wind samples WindFlow/RUN [OUT.html] [--iterations 1,3|last] [--prompts N]

Run it where the flow ran, as `wind export`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal

from components.config.paths import argument
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting
from components.samples import page
from components.samples.collect import collect
from components.samples.files import of_run
from components.samples.records import Samples


@command
def main(arguments: list[str] | None = None, prog: str = "wind samples") -> None:
    """The command line; see `plain_errors`."""
    given = _parser(prog).parse_args(arguments)
    out = given.out or Path(f"samples-{given.run.rpartition('/')[2]}.html")
    with waiting(f"reading {given.run}"), plain_errors():
        page.check(out)
        files = of_run(given.run)
        if given.iterations is not None:
            files = files.only(given.iterations)
        samples = collect(files, prompts=given.prompts)
    with plain_errors(written=out):
        size = page.write(samples, out)
    print(visible(_said(samples, out, size)))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=prog, description="Writes every prompt and response of a run into one HTML file that opens offline."
    )
    parser.add_argument("run", metavar="FLOW/RUN", help="such as WindFlow/1795473051411960; it may have failed")
    parser.add_argument("out", metavar="OUT.html", nargs="?", type=argument, help="default: ./samples-RUN.html")
    parser.add_argument(
        "--iterations", type=_iterations, metavar="N,N|last", help="numbers as in history, or `last`; default: all"
    )
    parser.add_argument(
        "--prompts",
        type=_count,
        metavar="N",
        help="the first N of each iteration and of the held-out ones; default: all, or what makes a file of 100 MB",
    )
    return parser


def _iterations(text: str) -> set[int] | Literal["last"]:
    if text == "last":
        return "last"
    if not re.fullmatch("[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither `last` nor numbers such as 1,3")
    return {int(number) for number in text.split(",")}


def _count(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _said(samples: Samples, out: Path, size: int) -> str:
    trained, held_out = samples.trained, samples.held_out
    count = sum(len(batch.texts) for batch in trained.batches)
    names = ", ".join(str(batch.iteration) for batch in trained.batches) or "none"
    policies = ", ".join(str(batch.iteration) for batch in held_out.batches[1:]) or "none"
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
    return "\n".join(
        [
            f"{count:,} responses to {len(trained.prompts):,} training prompts (iterations: {names}), and answers to "
            f"{len(held_out.prompts):,} held-out prompts by the reference and after iterations: {policies}.",
            *samples.notes,
            f"They are in {out} ({shown}). Open it in a browser.",
        ]
    )


if __name__ == "__main__":
    main()
