"""How much sooner two shards on two cores are done than one on one core: drawing and scoring, without loading.

    python benchmarks/two_shards.py MODEL_DIR PROMPTS.jsonl [--prompts 8] [--responses 6] [--tokens 64] [--rounds 5]

Each shard is a process of one thread on a core of its own, as a flow's tasks are with `resources.generate.cpu: 1`. The
rounds alternate; the ratio is that of medians. A machine's cores share its memory's bandwidth, which drawing needs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from drawing import drawn

Options = argparse.Namespace


def shard(core: int, share: slice, options: Options, ready: Barrier, done: Barrier) -> None:
    """Loads the policy, then draws and scores its share of the prompts between the barriers."""
    os.sched_setaffinity(0, {core})
    os.environ["OMP_NUM_THREADS"] = "1"
    from components import prompts
    from components.config.sections import PolicyConfig
    from components.generation.transformers import TransformersEngine
    from components.policy import logprobs
    from components.policy import model as policies

    policy = policies.load(options.model, PolicyConfig(model=str(options.model)), frozen=True)
    asked = prompts.load(str(options.prompts_file), split="train", allow_duplicates=True)[: options.prompts][share]
    ready.wait()
    rollout = drawn(policy, TransformersEngine(), asked, options.responses, options.tokens)
    logprobs.score_responses(policy, rollout.prompt_tokens, rollout.tokens)
    done.wait()


def seconds(shards: int, options: Options) -> float:
    """From when all are loaded until all are done."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(shards + 1), context.Barrier(shards + 1)
    shares = [slice(i, None, shards) for i in range(shards)]
    workers = [
        context.Process(target=shard, args=(core, share, options, ready, done)) for core, share in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begin = time.perf_counter()
    done.wait()
    took = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    return took


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts_file", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--responses", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for shards, times in found.items():
            times.append(seconds(shards, options))
            print(f"{shards} shard(s): {times[-1]:.1f} s", flush=True)
    one, two = (statistics.median(times) for times in found.values())
    print(json.dumps({"one": found[1], "two": found[2], "ratio": one / two}))


if __name__ == "__main__":
    main()
