"""Prints what a run would take before it is started: GPU hours, memory, storage and money, and by which formula.

    wind plan CONFIG [--gpu H100] [--price USD] [--parameters [MODEL=]COUNT]
        [--history CSV] [--network GBIT] [--spot-price USD --interruptions RATE]

Sizes of models come from their config.json, of a directory, which may hold nothing else, or of the hub. The formulas
are in `components.plan.costs`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from components.config.paths import argument
from components.config.strict_yaml import load_yaml, read_text
from components.plan import elapsed, measured
from components.plan.costs import Lengths
from components.plan.memory import stored
from components.plan.models import PlanError, sizes
from components.plan.table import GB, GPUS, assumptions, gpu_hours, render, runs
from components.reporting.text import digits
from components.run_config import checked
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting

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
        "--network", metavar="GBIT", type=_number, default=50.0, help="a second between machines; default: 50"
    )
    parser.add_argument(
        "--spot-price", metavar="USD", type=_number, help="of a GPU hour for generate and score, on spot machines"
    )
    parser.add_argument(
        "--interruptions",
        metavar="RATE",
        type=_number,
        help=f"of a spot machine, an hour; default: {INTERRUPTIONS:g}",
    )
    return parser


def _plan(given: argparse.Namespace) -> str:
    config = checked(load_yaml(read_text(given.config)))
    counts = _counts(given.parameters, str(config.policy.model))
    machines = _machines(given)
    history = None if given.history is None else measured.read(given.history)
    parts, hours, kept, cost = [], 0.0, 0.0, 0.0
    planned = runs(config)
    if history is not None and len(planned) > 1:
        raise PlanError("--history: is of one run, and this config compares several. Plan one of them, or without it.")
    for name, run in planned.items():
        lengths = Lengths(given.prompt_tokens, given.response_tokens or run.generation.max_new_tokens / 2)
        models = sizes(run, counts)
        work = gpu_hours(run, models, lengths, GPUS[given.gpu])
        work = work if history is None else measured.gpu_hours(run, work, history)
        steps = elapsed.steps(run, models, work, machines)
        title = [] if len(planned) == 1 else [f"# {name}"]
        parts.append("\n".join([*title, render(run, models, lengths, given.gpu, work)]))
        parts.extend(filter(None, [elapsed.render(steps)]))
        hours += sum(step.gpu_hours for step in steps.values())
        kept += stored(run, models, lengths).total(run.iterations)
        cost += 0.0 if given.price is None else elapsed.cost(steps, given.price, machines)
    if len(planned) > 1:
        parts.append(f"all runs: {digits(hours)} {given.gpu} hours, {digits(kept / GB)} GB stored")
    if given.price is not None:
        spot = "" if given.spot_price is None else f", {given.spot_price:g} on spot machines"
        parts.append(f"cost: {cost:,.2f} USD at {given.price:g} USD an hour{spot}")
    return "\n\n".join([*parts, assumptions(given.gpu, machines, measured=history is not None)])


def _machines(given: argparse.Namespace) -> elapsed.Machines:
    """Raises PlanError for interruptions of what is not on spot machines."""
    if given.interruptions is not None and given.spot_price is None:
        raise PlanError("--interruptions: are of spot machines. Give their price with --spot-price, too.")
    return elapsed.Machines(given.network * 1e9 / 8, given.spot_price, given.interruptions or INTERRUPTIONS)


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
