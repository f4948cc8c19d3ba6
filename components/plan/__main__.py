"""Prints what a run would take before it is started: GPU hours, memory, storage and money, and by which formula.

    wind plan CONFIG [--gpu H100] [--price USD] [--parameters [MODEL=]COUNT]
        [--history CSV [--history-shards N] | --network GBIT] [--spot-price USD --interruptions RATE]

Sizes of models come from their config.json, of a directory, which may hold nothing else, or of the hub. The formulas
are in `components.plan.costs`.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from components.config.paths import argument
from components.config.strict_yaml import load_yaml, read_text
from components.plan import demands, elapsed, measured, splitting
from components.plan.demands import LARGEST
from components.plan.history import read
from components.plan.memory import stored
from components.plan.models import sizes
from components.plan.table import GB, GPUS, assumptions, gpu_hours, render, render_start, runs
from components.reporting.text import digits
from components.run_config import checked
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting

INTERRUPTIONS = 0.05  # of a spot machine, an hour


@command
def main(arguments: list[str] | None = None, prog: str = "wind plan") -> None:
    """The command line; see `plain_errors`."""
    given = _parser(prog).parse_args(arguments)
    with plain_errors(), waiting(f"planning {given.config}"), _warned_once():
        planned = _plan(given)
    print(visible(planned))


@contextmanager
def _warned_once() -> Iterator[None]:
    """Shards are counted several times for a plan, and for each run of a comparison; each warning is given once."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        before = len(said)
        said.add(record.getMessage())
        return len(said) > before

    splitting.logger.addFilter(is_new)
    try:
        yield
    finally:
        splitting.logger.removeFilter(is_new)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description="Prints what a run would take, before it is started.")
    parser.add_argument("config", metavar="CONFIG", type=argument, help="YAML file of the run")
    parser.add_argument("--gpu", choices=GPUS, default="H100", help="default: H100")
    parser.add_argument("--price", metavar="USD", type=demands.number, help="of a GPU hour")
    parser.add_argument(
        "--parameters",
        metavar="[MODEL=]COUNT",
        action="append",
        default=[],
        help="size of a model whose config.json is not available, such as 8.0e9; without a name, the policy's",
    )
    parser.add_argument(
        "--prompt-tokens",
        metavar="N",
        type=demands.number,
        help=f"mean of a prompt; default: {demands.PROMPT_TOKENS:g}, or what policy.max_prompt_tokens allows",
    )
    parser.add_argument(
        "--response-tokens",
        metavar="N",
        type=demands.number,
        help="mean of a response; default: half of max_new_tokens",
    )
    parser.add_argument(
        "--history", metavar="CSV", type=argument, help="of such a run, whose times replace the estimates"
    )
    parser.add_argument(
        measured.SHARDS,
        metavar="N",
        type=demands.whole,
        help="prompts.shards of that run, where its history does not say",
    )
    network = f"a second between machines; default: {elapsed.NETWORK * 8 / 1e9:g}; not beside --history"
    parser.add_argument("--network", metavar="GBIT", type=demands.number, help=network)
    parser.add_argument(
        "--spot-price",
        metavar="USD",
        type=demands.number,
        help="of a GPU hour for generate and score, on spot machines",
    )
    parser.add_argument(
        "--interruptions",
        metavar="RATE",
        type=partial(demands.number, or_zero=True),
        help=f"of a spot machine, an hour; default: {INTERRUPTIONS:g}",
    )
    return parser


def _plan(given: argparse.Namespace) -> str:
    values = load_yaml(read_text(given.config))
    demands.require_run(values)
    config = checked(values)
    planned = runs(config)
    demands.require_used(given, list(planned.values()))
    counts, machines, history = demands.counts(given.parameters, str(config.policy.model)), _machines(given), None
    if given.history is not None:
        history = read(given.history)
    several = len(planned) > 1
    parts, found, kept = [], [], 0.0
    for name, run in planned.items():
        lengths, models = demands.lengths(given, run), sizes(run, counts)
        hours, loading = gpu_hours(run, models, lengths, GPUS[given.gpu]), {}
        if history is not None:
            hours = measured.gpu_hours(run, hours, history, given.history_shards)
            loading = {} if run.algorithm.on_policy else measured.loading(history)
        if several or run.start_from is not None:  # one together; what another run has done
            del hours["start"]
        steps = elapsed.steps(run, models, hours, machines, loading)
        title = [f"# {name}"] if several else []
        told = render(run, models, lengths, given.gpu, elapsed.with_loading(run, hours, loading))
        parts.append("\n".join([*title, told]))
        parts.extend(filter(None, [elapsed.render(steps)]))
        found.append(steps)
        kept += stored(run, models, lengths).total(run.iterations, start="start" in hours)
    if several:
        lengths, models = demands.lengths(given, config), sizes(config, counts)
        hours = {"start": gpu_hours(config, models, lengths, GPUS[given.gpu])["start"]}
        found.append(elapsed.steps(config, models, hours, machines))
        kept += stored(config, models, lengths).start
        parts.append(render_start(config, models, lengths, given.gpu, hours["start"]))
        total = sum(step.gpu_hours for steps in found for step in steps.values())
        parts.append(f"all runs: {digits(total)} {given.gpu} hours, {digits(kept / GB)} GB stored")
    if given.price is not None:
        cost = sum(elapsed.cost(steps, given.price, machines) for steps in found)
        spot = "" if given.spot_price is None else f", {given.spot_price:g} on spot machines"
        told = f"{cost:,.2f}" if cost < LARGEST else digits(cost)
        parts.append(f"cost: {told} USD at {given.price:g} USD an hour{spot}")
    estimated = [] if history is None else ["start", *([] if measured.evaluated(history) else ["evaluate"])]
    automatic = any(run.prompts.shards == "auto" for run in planned.values())
    return "\n\n".join([*parts, assumptions(given.gpu, machines, estimated, automatic=automatic)])


def _machines(given: argparse.Namespace) -> elapsed.Machines:
    network = elapsed.NETWORK if given.network is None else given.network * 1e9 / 8
    rate = INTERRUPTIONS if given.interruptions is None else given.interruptions
    return elapsed.Machines(math.inf if given.history is not None else network, given.spot_price, rate)


if __name__ == "__main__":
    main()
