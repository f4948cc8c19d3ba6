"""Drawing on a CPU by the transformers engine beside vLLM: steady rates, and from which length of work vLLM is ahead.

    python benchmarks/against_vllm.py MODEL_DIR PROMPTS.jsonl [--threads 1] [--precision fp32] [--rounds 3]
        [--responses 6] [--tokens 64] [--few 4] [--many 32]

Each call is a process of its own on `--threads` cores, which loads the policy and draws once, for few prompts or for
many, with the settings that runs have. Seconds are those of the call with vLLM's start, since every task starts it;
imports and the transformers engine's load of the policy are left out. The steady rate is that of the tokens and seconds
that many prompts need beyond few. vLLM's compiled code is kept between calls, as runs keep it, and one call of each
before the rounds warms up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from drawing import drawn

ENGINES = ("transformers", "vllm")
Cost = tuple[int, float]  # response tokens and wall seconds of a call


def draw(options: argparse.Namespace) -> Cost:
    """One call in this process."""
    from components import prompts
    from components.config.sections import PolicyConfig
    from components.generation.transformers import TransformersEngine
    from components.generation.vllm import VllmEngine
    from components.policy import model as policies
    from components.store import open_store

    engine = (
        TransformersEngine() if options.engine == "transformers" else VllmEngine().keeping(open_store(options.store))
    )
    settings = PolicyConfig(model=str(options.model), precision=options.precision)
    policy = policies.load(options.model, settings, frozen=True)
    asked = prompts.load(str(options.prompts_file), split="train", allow_duplicates=True)[: options.prompts]
    begin = time.perf_counter()
    rollout = drawn(policy, engine, asked, options.responses, options.tokens)
    return len(rollout.tokens.values), time.perf_counter() - begin


def call(engine: str, prompts: int, options: argparse.Namespace) -> Cost:
    """One call in a process of its own."""
    cores = ",".join(map(str, range(options.threads)))
    fixed = f"{__file__} {options.model} {options.prompts_file} --engine {engine} --prompts {prompts}".split()
    passed = ("threads", "precision", "responses", "tokens", "store")
    words = [word for name in passed for word in (f"--{name}", str(getattr(options, name)))]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive"}
    command = ["taskset", "-c", cores, sys.executable, *fixed, *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    tokens, seconds = json.loads(done.stdout.splitlines()[-1])
    print(f"{engine}, {prompts} prompts: {tokens:,} tokens in {seconds:.1f} s", flush=True)
    return tokens, seconds


def steady(few: Cost, many: Cost) -> float:
    """Tokens per second beyond what every call costs."""
    return (many[0] - few[0]) / (many[1] - few[1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts_file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--responses", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--few", type=int, default=4)
    parser.add_argument("--many", type=int, default=32)
    parser.add_argument("--store", default="against_vllm_store", help="where vLLM's compiled code is kept")
    parser.add_argument("--engine", choices=ENGINES, help="one call of this engine in this process, as JSON")
    parser.add_argument("--prompts", type=int, help="of that call")
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(draw(options)))
        return
    for engine in ENGINES:
        call(engine, options.few, options)
    rounds = [
        {engine: (call(engine, options.few, options), call(engine, options.many, options)) for engine in ENGINES}
        for _ in range(options.rounds)
    ]
    rates = {engine: statistics.median(steady(*costs[engine]) for costs in rounds) for engine in ENGINES}
    ratio = statistics.median(steady(*costs["transformers"]) / steady(*costs["vllm"]) for costs in rounds)
    start = statistics.median(costs["vllm"][0][1] - costs["vllm"][0][0] / rates["vllm"] for costs in rounds)
    print(
        f"{options.precision}, {options.threads} threads: transformers {rates['transformers']:.0f} tokens/s steady, "
        f"vLLM {rates['vllm']:.0f}, {ratio:.2f} times; vLLM's start {start:.0f} s",
        flush=True,
    )
    if ratio < 1:
        ahead = start / (1 - rates["transformers"] / rates["vllm"])
        print(f"vLLM is ahead in calls of more than {ahead:.0f} s ({ahead * rates['transformers']:,.0f} tokens)")


if __name__ == "__main__":
    main()
