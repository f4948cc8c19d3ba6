"""How long a run takes and what it costs when tasks run at once: shards, machines that train together, spot prices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from components.config.steps import SHARDED
from components.plan import splitting
from components.plan.costs import Models, busiest
from components.plan.models import PlanError
from components.plan.space import FP32
from components.reporting.text import digits
from components.run_config import RunConfig

# Simulated iterations, of which the mean is taken, and the most tasks of all of them together.
TRIES, MOST_TASKS = 2000, 1_000_000
HOPELESS = 5  # interruptions in a task's time: hardly one attempt in 150 ends well
TOO_MUCH = 0.1  # work done again, as a share of what has to be done
# Of a pass forward and back: weights are gathered twice, and gradients summed once.
PASSES_OF_WEIGHTS, PASSES_OF_GRADIENTS = 3, 2
NETWORK = 50e9 / 8  # bytes a second
NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Machines:
    """What the tasks run on."""

    network: float = NETWORK  # bytes a second between two machines; inf where the hours have the waiting in them
    spot_price: float | None = None  # USD of a GPU hour for generate and score; None: they are not on spot machines
    interruptions: float = 0.0  # of a machine, an hour


@dataclass(frozen=True)
class Step:
    """One kind of step, all iterations together."""

    tasks: int  # at once
    gpus: int  # of a task
    gpu_hours: float  # with what is done again
    hours: float  # from its beginning to its end
    again: float = 0.0  # share of the work that is lost and done again
    waiting: float = 0.0  # of its hours, those in which machines wait for their network


def steps(
    config: RunConfig,
    models: Models,
    hours: Mapping[str, float],
    machines: Machines,
    loading: Mapping[str, float] = NOTHING,
) -> dict[str, Step]:
    """Each kind of step; shards all run at once.

    Args:
        config: of one run.
        models: that it uses.
        hours: GPU hours of each kind's work, those of `train` with GPUs that wait for others.
        machines: that it runs on.
        loading: seconds that each shard's task of a kind takes besides, to load models.

    Raises:
        PlanError: spot machines are interrupted so often that hardly a task ends.
    """
    found: dict[str, Step] = {}
    for kind, work in hours.items():
        gpus = config.num_gpus(kind)
        if kind in SHARDED:
            found[kind] = _sharded(config, hours, kind, machines, loading)
        elif kind == "train":
            nodes, waiting = config.training.nodes, exchange(config, models, machines) / 3600
            elapsed = work / (nodes * gpus) + waiting
            found[kind] = Step(nodes, gpus, elapsed * nodes * gpus, elapsed, waiting=waiting)
        else:
            found[kind] = Step(1, gpus, work, work / gpus)
    return found


def shards(config: RunConfig, hours: Mapping[str, float], loading: Mapping[str, float] = NOTHING) -> int:
    """Of an iteration; `auto` by these GPU hours of the whole run and the seconds for loading."""
    settings, t = config.prompts, config.iterations
    if settings.shards != "auto":
        return settings.shards
    work = 3600 * sum(hours[kind] / config.num_gpus(kind) for kind in SHARDED) / t
    return splitting.automatic(settings, work, sum(loading.values()))


def with_loading(config: RunConfig, hours: Mapping[str, float], loading: Mapping[str, float]) -> dict[str, float]:
    """The GPU hours with those in which tasks load models; see `steps`."""
    if not loading:
        return dict(hours)
    tasks = config.iterations * shards(config, hours, loading)
    return {kind: work + tasks * config.num_gpus(kind) * loading.get(kind, 0.0) / 3600 for kind, work in hours.items()}


def _sharded(
    config: RunConfig, hours: Mapping[str, float], kind: str, machines: Machines, loading: Mapping[str, float]
) -> Step:
    count, gpus, t = shards(config, hours, loading), config.num_gpus(kind), config.iterations
    n, work = config.prompts.per_iteration, with_loading(config, hours, loading)[kind]
    # Hours of a task with one prompt, and of that with the most, if nothing interrupts it.
    least, alone = (
        hours[kind] * prompts / n / (t * gpus) + loading.get(kind, 0.0) / 3600
        for prompts in (1, splitting.largest(n, count))
    )
    rate = machines.interruptions if machines.spot_price is not None else 0.0
    if not alone or not rate:
        return Step(count, gpus, work, t * alone)
    if rate * alone > HOPELESS:
        remedy = "Raise prompts.shards, or" if rate * least <= HOPELESS else "No number of shards changes that:"
        raise PlanError(
            f"--interruptions: a task of {kind} takes {digits(alone)} hours and begins anew when it is interrupted, so "
            f"with {rate:g} an hour hardly one ends. {remedy} leave spot machines out."
        )
    again = expected(alone, rate) / alone - 1
    return Step(count, gpus, work * (1 + again), t * slowest(alone, rate, count), again)


def expected(hours: float, rate: float) -> float:
    """Mean hours until a task has run `hours` on end, begun anew whenever interrupted: (exp(rate·hours) - 1) / rate.

    Interruptions come as a Poisson process, `rate` an hour.
    """
    return math.expm1(min(rate * hours, 700)) / rate


def slowest(hours: float, rate: float, count: int) -> float:
    """Mean hours until the last of `count` such tasks ends, simulated."""
    if rate * hours > HOPELESS:
        return math.inf
    tries = max(1, min(TRIES, MOST_TASKS // count))
    rng, total = np.random.default_rng(0), np.full(tries * count, float(hours))
    running = np.arange(len(total))
    while len(running):
        lasted = rng.exponential(1 / rate, len(running))
        running, lasted = running[lasted < hours], lasted[lasted < hours]
        total[running] += lasted
    return float(total.reshape(tries, count).max(1).mean())


def exchange(config: RunConfig, models: Models, machines: Machines) -> float:
    """Seconds in which machines that train together wait for the network, all iterations.

    Without an adapter, each micro-batch gathers all weights, in fp32, twice and sums their gradients once; of each of
    these, all that other machines hold must come through a machine's network. With one, the adapter's gradient does,
    there and back. Nothing is taken to overlap with computing.
    """
    settings, nodes = config.training, config.training.nodes
    if nodes == 1:
        return 0.0
    micro_batches = settings.epochs * busiest(config, settings.micro_batch_size)
    moved = PASSES_OF_GRADIENTS * models.adapter if settings.lora else PASSES_OF_WEIGHTS * models.policy.parameters
    return config.iterations * micro_batches * FP32 * moved * (nodes - 1) / nodes / machines.network


def cost(found: Mapping[str, Step], price: float, machines: Machines) -> float:
    """USD, with `price` for a GPU hour that is not on a spot machine."""
    spot = price if machines.spot_price is None else machines.spot_price
    return sum(step.gpu_hours * (spot if kind in SHARDED else price) for kind, step in found.items())


def render(found: Mapping[str, Step]) -> str:
    """Times of the steps as text; empty where one GPU does all of it."""
    if all(step.tasks * step.gpus == 1 and not step.again for step in found.values()):
        return ""
    lines = [f"expected time: {digits(sum(step.hours for step in found.values()))} hours, if all of this runs at once:"]
    for kind, step in found.items():
        if not step.hours:
            continue
        tasks = f"{step.tasks} x {step.gpus} GPUs"
        again = f", of which {step.again / (1 + step.again):.1%} are done again" if step.again else ""
        again += "; raise prompts.shards" if step.again > TOO_MUCH else ""
        lines.append(f"  {kind}: {digits(step.hours)} hours on {tasks}, {digits(step.gpu_hours)} GPU hours{again}")
        if step.waiting:
            lines.append(f"    in {digits(step.waiting)} of these hours all wait for the network between machines")
    return "\n".join(lines)
