"""The plan of a run as text: what goes in, hours and memory of each step, storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.plan.costs import Lengths, Models, busy, work
from components.plan.elapsed import Machines
from components.plan.memory import BF16, bytes_of, cache, engine_weights, memory, stored
from components.plan.models import PlanError
from components.reporting.text import aligned, digits
from components.run_config import RunConfig
from components.run_config.fields import LATEST

GB = 1e9


@dataclass(frozen=True)
class Gpu:
    """Peak operations per second, dense, as its maker states them, and bytes of memory."""

    bf16: float
    fp32: float
    memory: float


GPUS = {
    "H200": Gpu(989e12, 67e12, 141 * GB),
    "H100": Gpu(989e12, 67e12, 80 * GB),
    "A100": Gpu(312e12, 19.5e12, 80 * GB),
    "L40S": Gpu(362e12, 91.6e12, 48 * GB),
    "L4": Gpu(121e12, 30.3e12, 24 * GB),
    "A10G": Gpu(70e12, 35e12, 24 * GB),
    "RTX4090": Gpu(165e12, 82.6e12, 24 * GB),
    "RTX3090": Gpu(71e12, 35.6e12, 24 * GB),
}
# Shares of the peak, assumed. Sampling waits for memory, the more so the fewer responses run at once.
SAMPLING = {"vllm": 0.15, "transformers": 0.03}
READING, TRAINING = 0.4, 0.35


def runs(config: RunConfig) -> dict[str, RunConfig]:
    """The runs of a config, by name: one, or of a comparison one per arm and seed.

    Raises PlanError for the demo, and for a comparison whose budget is time.
    """
    compare = config.compare
    if config.demo is not None:
        raise PlanError("demo: makes a policy that trains in minutes on a CPU. Plan a config with policy.model.")
    if compare is None:
        return {"run": config}
    if compare.budget is not None and compare.budget.seconds is not None:
        raise PlanError("compare.budget.seconds: says what the run takes. Give a budget of samples to plan.")
    return {f"{arm}, seed {seed}": config.arm(arm) for arm in compare.arms for seed in compare.seeds}


def gpu_hours(config: RunConfig, models: Models, lengths: Lengths, gpu: Gpu) -> dict[str, float]:
    """GPU hours of each kind of step, all iterations of a run together; those of `train` with GPUs that wait idle."""
    peak = gpu.bf16 if bytes_of(config) == BF16 else gpu.fp32
    utilisation = {"generate": _sampling(config), "read": READING, "train": TRAINING}
    steps = work(config, models, lengths)
    hours = {kind: flops.seconds(peak, utilisation) / 3600 for kind, flops in steps.items()}
    return {**hours, "train": hours["train"] / busy(config)}


def _sampling(config: RunConfig) -> float:
    return SAMPLING.get(config.generation.engine.name, SAMPLING["transformers"])


def render(config: RunConfig, models: Models, lengths: Lengths, gpu_name: str, hours: Mapping[str, float]) -> str:
    """The plan of one run as text, given the GPU hours of its steps, of which `start` may be another's."""
    flops = {kind: flops.total for kind, flops in work(config, models, lengths).items() if kind in hours}
    needed = {kind: size for kind, size in memory(config, models, lengths).items() if kind in hours}
    rows = [[kind, digits(flops[kind] / 1e15), digits(hours[kind]), digits(needed[kind] / GB)] for kind in hours]
    rows.append(["run", digits(sum(flops.values()) / 1e15), digits(sum(hours.values())), ""])
    kept = stored(config, models, lengths)
    total = kept.total(config.iterations, start="start" in hours)
    lines = [
        *_inputs(config, models, lengths),
        "",
        aligned(["step", "PFLOP", f"{gpu_name} hours", "GB of GPU memory"], rows, labels=1),
        "",
        f"stored: {digits(kept.iteration / GB)} GB an iteration, {digits(total / GB)} GB in all",
        *_room(config, models, lengths, gpu_name),
        *_too_large(needed, gpu_name),
        *_idle(config),
    ]
    return "\n".join(lines)


def render_start(config: RunConfig, models: Models, lengths: Lengths, gpu_name: str, hours: float) -> str:
    """What a comparison does once for all of its runs, given the GPU hours of that."""
    needed = {"start": memory(config, models, lengths)["start"]}
    kept = stored(config, models, lengths).start
    told = (
        f"start, once for all runs: {digits(hours)} {gpu_name} hours, {digits(needed['start'] / GB)} GB of GPU memory, "
        f"{digits(kept / GB)} GB stored"
    )
    return "\n".join([told, *_too_large(needed, gpu_name)])


def _too_large(needed: Mapping[str, float], gpu_name: str) -> list[str]:
    """A line about the steps, by their bytes, that one GPU has too little memory for."""
    there = GPUS[gpu_name].memory
    over = [kind for kind, size in needed.items() if size > there]
    return [f"does not fit into the {digits(there / GB)} GB of one {gpu_name}: {', '.join(over)}"] if over else []


def _idle(config: RunConfig) -> list[str]:
    """A line about GPUs of `train` that have nothing to do for a part of its time."""
    share, settings, gpus = 1 - busy(config), config.training, config.training.nodes * config.num_gpus("train")
    if not share:
        return []
    if gpus > settings.world:  # then all of them are on one machine, and have one process
        return [f"train: of its {gpus} GPUs its one process uses one, see training.processes and resources.train.gpu"]
    n = config.prompts.per_iteration
    return [
        f"train: processes idle in {digits(100 * share)}% of its GPU hours; let their number, {settings.world}, divide "
        f"training.batch_size ({settings.batch_size:,}) and prompts.per_iteration ({n:,})"
    ]


def _inputs(config: RunConfig, models: Models, lengths: Lengths) -> list[str]:
    trained = f"; LoRA trains {digits(models.adapter / 1e6)} M more" if models.adapter else ""
    return [
        f"policy: {digits(models.policy.parameters / 1e9)} B parameters{trained}",
        *(f"judge {judge.name}: {digits(shape.parameters / 1e9)} B parameters" for judge, shape in models.judges),
        f"{config.iterations} iterations of {config.prompts.per_iteration:,} prompts, {config.generation.responses} "
        f"responses each; {lengths.prompt:g} tokens a prompt, {lengths.response:g} a response",
        *([] if config.start_from is None else [_continued(config.start_from)]),
    ]


def _continued(origin: str) -> str:
    """What the run takes over instead of making it."""
    known = "" if origin != LATEST else ", if there is one that it can continue"
    return f"continues {origin}{known}: start draws nothing, and the base policy is stored already"


def _room(config: RunConfig, models: Models, lengths: Lengths, gpu_name: str) -> list[str]:
    """What an engine that takes a share of the GPU has left for the cache."""
    share = getattr(config.generation.engine, "gpu_memory_utilization", None)
    if share is None:
        return []
    longest = Lengths(lengths.prompt, config.generation.max_new_tokens)
    room = max(0.0, share * GPUS[gpu_name].memory - engine_weights(config, models))
    count = int(room / cache(config, models, longest))
    return [f"{share:.0%} of one {gpu_name} hold the weights and the cache of {count} responses"]


def assumptions(gpu_name: str, machines: Machines, estimated: Sequence[str], *, automatic: bool) -> str:
    """By which formula the figures come, and what it takes for granted.

    Args:
        gpu_name: of the GPUs.
        machines: that the runs use.
        estimated: kinds of steps whose hours are no history's, beside one; else empty.
        automatic: whether a run has `prompts.shards: auto`.
    """
    gpu = GPUS[gpu_name]
    between = (
        f"Between machines {machines.network * 8 / 1e9:g} Gbit/s, with which no computing overlaps: of each micro-batch"
        " the weights in fp32\nthree times, or the adapter's twice. "
    )
    if estimated:
        between = (
            f"Hours of all steps but {' and '.join(estimated)} are those of --history, for as many prompts, with "
            "loading models for each\nshard and waiting for the network. The slowest shard is taken for one of "
            "those with the most prompts, and the others to take as long.\n"
        )
        if "evaluate" in estimated:
            between += "What evaluate takes is not known: --history has no evaluated iteration. It is estimated.\n"
    first = (
        "\nWith prompts.shards: auto, the first iteration of a run that continues none knows no times: it has as many "
        "shards\nas prompts.most_shards allows, and later ones as many as prompts.shard_minutes asks for."
    )
    return f"""\
FLOP = 2 x parameters x tokens for what is read (prompts once for their K responses, both log-probs, the judge's
inputs) or generated; 6 x for training, 8 x with gradient checkpointing, with LoRA 4 x and 6 x. Left out: attention's
own products, moving files, starting engines, benchmarks.
Hours = FLOP / (peak x utilisation); {gpu_name}: {gpu.bf16 / 1e12:g} TFLOP/s in bf16, {gpu.fp32 / 1e12:g} in fp32. \
GPUs that work at once share them.
A training step lasts as long as the process with the most prompts needs; the others wait, which counts.
Assumed: sampling uses {SAMPLING["vllm"]:.0%} of the peak with vllm and {SAMPLING["transformers"]:.0%} with \
transformers, reading {READING:.0%}, training {TRAINING:.0%}; the mean lengths
above, unless --prompt-tokens and --response-tokens give others.
Memory, on each GPU, is for responses of max_new_tokens: weights in fp32 and a bf16 copy, with LoRA in bf16 alone; in
training gradients (4 bytes), moments (adamw 8, rmsprop 4, adamw_8bit 2), which processes share, and activations.
{between}An interrupted shard begins anew; interruptions are a Poisson process.{first if automatic else ""}"""
