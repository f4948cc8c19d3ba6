"""How long a run takes and what it costs when tasks run at once: shards, machines that train together, spot prices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from components.config.steps import SHARDED
from components.plan import splitting
from components.plan.costs import Models, busiest
from components.plan.interruptions import HOPELESS, again, slowest
from components.plan.models import PlanError
from components.plan.space import FP32
from components.prompts.config import PromptsConfig
from components.reporting.text import digits
from components.run_config import RunConfig

MORE = "raise prompts.shards, or lower prompts.shard_minutes where that is auto"
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

    tasks: int  # at once, of the iteration with the most
    gpus: int  # of a task
    gpu_hours: float  # with what is done again
    hours: float  # from its beginning to its end
    again: float = 0.0  # share of the work that is lost and done again
    waiting: float = 0.0  # of its hours, those in which machines wait for their network
    later: int = 0  # tasks at once after the first iteration, if that has another number of shards


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


def shards(config: RunConfig, hours: Mapping[str, float], loading: Mapping[str, float] = NOTHING) -> list[int]:
    """Of each iteration, of all but the first alike; `auto` by these GPU hours of the whole run and those of loading.

    As in the run itself, nothing is known before the first iteration; one that continues another run knows its times.

    Args:
        config: of one run.
        hours: GPU hours of each kind's work.
        loading: seconds that each shard's task of a kind takes besides.
    """
    settings, t = config.prompts, config.iterations
    unknown = splitting.how_many(settings, None)
    if settings.shards != "auto":
        return [unknown] * t
    first = [unknown] if config.start_from is None else []
    if len(first) == t:
        return first
    work = 3600 * sum(hours[kind] / config.num_gpus(kind) for kind in SHARDED) / t
    return first + [splitting.automatic(settings, work, sum(loading.values()))] * (t - len(first))


def with_loading(config: RunConfig, hours: Mapping[str, float], loading: Mapping[str, float]) -> dict[str, float]:
    """The GPU hours with those in which tasks load models; see `steps`."""
    if not loading:
        return dict(hours)
    tasks = sum(shards(config, hours, loading))
    return {kind: work + tasks * config.num_gpus(kind) * loading.get(kind, 0.0) / 3600 for kind, work in hours.items()}


def _sharded(
    config: RunConfig, hours: Mapping[str, float], kind: str, machines: Machines, loading: Mapping[str, float]
) -> Step:
    counts, gpus, load = shards(config, hours, loading), config.num_gpus(kind), loading.get(kind, 0.0) / 3600
    each = hours[kind] / config.iterations  # GPU hours of an iteration's prompts
    rate = machines.interruptions if machines.spot_price is not None else 0.0
    prompts, elapsed, work, lost = config.prompts, 0.0, 0.0, 0.0
    for count, times in Counter(counts).items():
        alone = _alone(prompts, each / gpus, load, count)
        if rate * alone > HOPELESS:
            least = _alone(prompts, each / gpus, load, prompts.per_iteration)
            raise _hopeless(kind, alone, rate, possible=rate * least <= HOPELESS)
        needed = times * (each + count * gpus * load)
        work += needed
        lost += needed * again(rate * alone)
        elapsed += times * (slowest(alone, rate, count) if rate else alone)
    later = counts[-1] if counts[-1] != counts[0] else 0
    return Step(max(counts), gpus, work + lost, elapsed, lost / work if work else 0.0, later=later)


def _alone(prompts: PromptsConfig, hours: float, loading: float, shards: int) -> float:
    """Hours of the largest of an iteration's shards if nothing interrupts it.

    Args:
        prompts: of a run.
        hours: of one task that had all of an iteration's prompts.
        loading: hours of any task.
        shards: of the iteration.
    """
    return hours * splitting.largest(prompts.per_iteration, shards) / prompts.per_iteration + loading


def _hopeless(kind: str, hours: float, rate: float, *, possible: bool) -> PlanError:
    """That a task takes too long for so many interruptions an hour; `possible`: one of a single prompt would not."""
    remedy = f"{MORE.capitalize()}, or" if possible else "No number of shards changes that:"
    return PlanError(
        f"--interruptions: a task of {kind} takes {digits(hours)} hours and begins anew when it is interrupted, so "
        f"with {rate:g} an hour hardly one ends. {remedy} leave spot machines out."
    )


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
        tasks += f" (after the first iteration {step.later} x {step.gpus})" if step.later else ""
        again = f", of which {step.again / (1 + step.again):.1%} are done again" if step.again else ""
        again += f"; {MORE}" if step.again > TOO_MUCH else ""
        lines.append(f"  {kind}: {digits(step.hours)} hours on {tasks}, {digits(step.gpu_hours)} GPU hours{again}")
        if step.waiting:
            lines.append(f"    in {digits(step.waiting)} of these hours all wait for the network between machines")
    return "\n".join(lines)
