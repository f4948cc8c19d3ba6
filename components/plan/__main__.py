"""Prints what a run would take before it is started: GPU hours, memory, storage and money, and by which formula.

    wind plan CONFIG [--gpu H100] [--price USD] [--parameters [MODEL=]COUNT]
        [--history CSV [--history-shards N] | --network GBIT] [--spot-price USD --interruptions RATE]

Sizes of models come from their config.json, of a directory, which may hold nothing else, or of the hub. The formulas
are in `components.plan.costs`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from components.config.paths import argument
from components.config.strict_yaml import load_yaml, read_text
from components.plan import elapsed, measured
from components.plan.costs import Lengths
from components.plan.memory import stored
from components.plan.models import PlanError, sizes
from components.plan.table import GB, GPUS, assumptions, gpu_hours, render, render_start, runs
from components.reporting.text import digits
from components.run_config import RunConfig, checked
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1e15
INTERRUPTIONS = 0.05  # of a spot machine, an hour


@command
def main(arguments: list[str] | None = None, prog: str = "wind plan") -> None:
    """The command line; see `plain_errors`."""
    given = _parser(prog).parse_args(arguments)
    with plain_errors(), waiting(f"planning {given.config}"):
        planned = _plan(given)
    print(visible(planned))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description="Prints what a run would take, before it is started.")
    parser.add_argument("config", metavar="CONFIG", type=argument, help="YAML file of the run")
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
    parser.add_argument(
        "--history", metavar="CSV", type=argument, help="of such a run, whose times replace the estimates"
    )
    parser.add_argument(
        measured.SHARDS, metavar="N", type=_whole, help="prompts.shards of that run, where its history does not say"
    )
    network = f"a second between machines; default: {elapsed.NETWORK * 8 / 1e9:g}; not beside --history"
    parser.add_argument("--network", metavar="GBIT", type=_number, help=network)
    parser.add_argument(
        "--spot-price", metavar="USD", type=_number, help="of a GPU hour for generate and score, on spot machines"
    )
    parser.add_argument(
        "--interruptions",
        metavar="RATE",
        type=partial(_number, or_zero=True),
        help=f"of a spot machine, an hour; default: {INTERRUPTIONS:g}",
    )
    return parser


def _plan(given: argparse.Namespace) -> str:
    config = checked(load_yaml(read_text(given.config)))
    counts, machines, planned = _counts(given.parameters, str(config.policy.model)), _machines(given), runs(config)
    history, several = _history(given), len(planned) > 1
    if history is not None and several:
        raise PlanError("--history: is of one run, and this config compares several. Plan one of them, or without it.")
    parts, found, kept = [], [], 0.0
    for name, run in planned.items():
        lengths, models = _lengths(given, run), sizes(run, counts)
        hours = gpu_hours(run, models, lengths, GPUS[given.gpu])
        hours = hours if history is None else measured.gpu_hours(run, hours, history, given.history_shards)
        if several:  # they have one `start` together
            del hours["start"]
        steps = elapsed.steps(run, models, hours, machines)
        title = [f"# {name}"] if several else []
        parts.append("\n".join([*title, render(run, models, lengths, given.gpu, hours)]))
        parts.extend(filter(None, [elapsed.render(steps)]))
        found.append(steps)
        kept += stored(run, models, lengths).total(run.iterations, start=not several)
    if several:
        lengths, models = _lengths(given, config), sizes(config, counts)
        hours = {"start": gpu_hours(config, models, lengths, GPUS[given.gpu])["start"]}
        found.append(elapsed.steps(config, models, hours, machines))
        kept += stored(config, models, lengths).start
        parts.append(render_start(config, models, lengths, given.gpu, hours["start"]))
        total = sum(step.gpu_hours for steps in found for step in steps.values())
        parts.append(f"all runs: {digits(total)} {given.gpu} hours, {digits(kept / GB)} GB stored")
    if given.price is not None:
        cost = sum(elapsed.cost(steps, given.price, machines) for steps in found)
        spot = "" if given.spot_price is None else f", {given.spot_price:g} on spot machines"
        parts.append(f"cost: {cost:,.2f} USD at {given.price:g} USD an hour{spot}")
    return "\n\n".join([*parts, assumptions(given.gpu, machines, measured=history is not None)])


def _lengths(given: argparse.Namespace, run: RunConfig) -> Lengths:
    return Lengths(given.prompt_tokens, given.response_tokens or run.generation.max_new_tokens / 2)


def _machines(given: argparse.Namespace) -> elapsed.Machines:
    """Raises PlanError for interruptions of what is not on spot machines, and for a network that counts for nothing."""
    if given.interruptions is not None and given.spot_price is None:
        raise PlanError("--interruptions: are of spot machines. Give their price with --spot-price, too.")
    network = elapsed.NETWORK if given.network is None else given.network * 1e9 / 8
    if given.history is not None:
        if given.network is not None:
            raise PlanError("--network: the times of --history have the waiting for it in them. Leave one of them out.")
        network = math.inf
    rate = INTERRUPTIONS if given.interruptions is None else given.interruptions
    return elapsed.Machines(network, given.spot_price, rate)


def _history(given: argparse.Namespace) -> pd.DataFrame | None:
    """Raises PlanError as `measured.read` does, and for shards of none."""
    if given.history is not None:
        return measured.read(given.history)
    if given.history_shards is not None:
        raise PlanError(f"{measured.SHARDS}: is how the run of --history was split. Give that, too.")
    return None


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


def _number(text: str, *, or_zero: bool = False) -> float:
    """A size, length, price or rate. Raises argparse's error for what is none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 < number <= LARGEST or (or_zero and number == 0)):
        bounds = "from 0" if or_zero else "above 0 and up"
        raise argparse.ArgumentTypeError(f"{text!r} is no number {bounds} to {LARGEST:g}. Write it as in 0.5 or 8.0e9")
    return number


def _whole(text: str) -> int:
    """How many there are of something. Raises argparse's error for what is no whole number above 0."""
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {LARGEST:g}")
    return int(text)


if __name__ == "__main__":
    main()
