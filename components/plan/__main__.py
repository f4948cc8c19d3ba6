"""Prints what a run would take before it is started: GPU hours, memory, storage and money, and by which formula.

    wind plan CONFIG [--gpu H100] [--price USD] [--parameters [MODEL=]COUNT]

Sizes of models come from their config.json, of a directory, which may hold nothing else, or of the hub. The formulas
are in `components.plan.costs`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from components.config.strict_yaml import load_yaml, read_text
from components.plan.costs import Lengths
from components.plan.memory import stored
from components.plan.models import PlanError, sizes
from components.plan.table import GB, GPUS, assumptions, gpu_hours, number, render, runs
from components.run_config import checked
from components.runtime.terminal import plain_errors

LARGEST = 1e15


def main(arguments: list[str] | None = None, prog: str = "wind plan") -> None:
    """The command line; see `plain_errors`."""
    given = _parser(prog).parse_args(arguments)
    with plain_errors():
        print(_plan(given))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Prints what a run would take, before it is started.")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the run")
    parser.add_argument("--gpu", choices=GPUS, default="H100", help="default: H100")
    parser.add_argument("--price", metavar="USD", type=_number, help="of a GPU hour")
    parser.add_argument(
        "--parameters",
        metavar="[MODEL=]COUNT",
        action="append",
        default=[],
        help="size of a model whose config.json is not available, such as 8.0e9; without a name, the policy's",
    )
    parser.add_argument(
        "--prompt-tokens", metavar="N", type=_number, default=200.0, help="mean of a prompt; default: 200"
    )
    parser.add_argument(
        "--response-tokens", metavar="N", type=_number, help="mean of a response; default: half of max_new_tokens"
    )
    return parser


def _plan(given: argparse.Namespace) -> str:
    config = checked(load_yaml(read_text(given.config)))
    counts = _counts(given.parameters, str(config.policy.model))
    parts, hours, kept = [], 0.0, 0.0
    planned = runs(config)
    for name, run in planned.items():
        lengths = Lengths(given.prompt_tokens, given.response_tokens or run.generation.max_new_tokens / 2)
        models = sizes(run, counts)
        title = [] if len(planned) == 1 else [f"# {name}"]
        parts.append("\n".join([*title, render(run, models, lengths, given.gpu)]))
        hours += sum(gpu_hours(run, models, lengths, GPUS[given.gpu]).values())
        kept += stored(run, models, lengths).total(run.iterations)
    if len(planned) > 1:
        parts.append(f"all runs: {number(hours)} {given.gpu} hours, {number(kept / GB)} GB stored")
    if given.price is not None:
        parts.append(f"cost: {hours * given.price:,.2f} USD at {given.price:g} USD an hour")
    return "\n\n".join([*parts, assumptions(given.gpu)])


def _counts(given: Sequence[str], policy: str) -> dict[str, float]:
    """Parameters by model. Raises PlanError for what is no number."""
    counts: dict[str, float] = {}
    for text in given:
        name, _, count = text.rpartition("=")
        try:
            counts[name or policy] = _number(count)
        except argparse.ArgumentTypeError as error:
            raise PlanError(f"--parameters {text}: {count!r} is no number. Write it as in 8.0e9.") from error
    return counts


def _number(text: str) -> float:
    """A size, length or price. Raises argparse's error for what is none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and up to {LARGEST:g}. Write it as in 8.0e9")
    return number


if __name__ == "__main__":
    main()
