"""Peak memory of the steps that hold a whole iteration: plan, gather, and what train reads.

    python benchmarks/memory.py [--prompts 60000] [--responses 5] [--tokens 300] [--shards 16]

Random prompts and responses of `--tokens` tokens each on average, four characters a token, go through a local store.
Each step runs in a process of its own, whose peak counts imports; so does each that makes data. Train's step reads the
scored rollouts, selects, and puts every token into a batch; the policy, the optimiser and Metaflow (under 20 MB in
every step) come on top.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a child's peak starts from its parent's memory, so this process stays small
    from components.stages.context import Workspace

MB = 1_000_000
VOCABULARY = 128_000
CHARACTERS = 4  # per token, about what English takes

Options = argparse.Namespace


def random_texts(count: int, options: Options, seed: tuple[int, ...]) -> list[str]:
    """Texts of lower-case letters and spaces."""
    import numpy as np

    rng = np.random.default_rng(seed)
    lengths = random_lengths(count, options, seed) * CHARACTERS
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz    ", np.uint8)
    return [letters[rng.integers(len(letters), size=length)].tobytes().decode() for length in lengths]


def random_lengths(count: int, options: Options, seed: tuple[int, ...]) -> Any:
    """Numbers of tokens, from half to one and a half of the mean."""
    import numpy as np

    half = options.tokens // 2
    return np.random.default_rng((1, *seed)).integers(options.tokens - half, options.tokens + half + 1, size=count)


def random_tokens(count: int, options: Options, seed: tuple[int, ...]) -> Any:
    """`count` token sequences."""
    import numpy as np

    from components.data.records import Ragged

    offsets = np.concatenate([[0], random_lengths(count, options, seed).cumsum()])
    values = np.random.default_rng((2, *seed)).integers(VOCABULARY, size=offsets[-1], dtype=np.int32)
    return Ragged(values, offsets)


def prompts(work: Workspace, options: Options, _: dict[str, Any]) -> Any:
    """Makes train.jsonl."""

    def write(path: Path) -> None:
        with path.open("w") as file:
            for number, text in enumerate(random_texts(options.prompts, options, (0,))):
                record = {"id": f"prompt-{number}", "prompt": text, "answer": str(number), "metadata": {"row": number}}
                file.write(json.dumps(record) + "\n")

    return work.keep("train.jsonl", write)


def plan(work: Workspace, _: Options, made: dict[str, Any]) -> Any:
    """The step."""
    from components import stages

    return stages.plan(work, made["prompts"], 1)


def rollouts(work: Workspace, options: Options, made: dict[str, Any]) -> Any:
    """Makes the scored rollout of each shard."""
    import numpy as np

    from components.data.records import Rollout, Scored
    from components.data.rollouts import save_scored

    manifests, k = [], options.responses
    for number, shard in enumerate(made["plan"]):
        ids = [prompt.id for prompt in work.prompts(shard, "shard")]
        n, seed = len(ids), (3, number)
        rng = np.random.default_rng(seed)
        drawn = random_tokens(n * k, options, seed), random_texts(n * k, options, seed), rng.random((n, k)) < 0.9
        logp, reward, wins = rng.normal(-options.tokens, 9, (n, k)), rng.random((n, k)), rng.random((n, k, k))
        rollout = Rollout(ids, random_tokens(n, options, (4, number)), *drawn)
        scored = Scored(rollout, logp, logp - 1, (1 + wins - wins.swapaxes(1, 2)) / 2, reward)
        manifests.append(work.keep("rollout.parquet", lambda path, scored=scored: save_scored(scored, path)))
    return manifests


def gather(work: Workspace, _: Options, made: dict[str, Any]) -> Any:
    """The step."""
    from components import stages

    return stages.gather(work, made["plan"], made["rollouts"])


def train(work: Workspace, _: Options, made: dict[str, Any]) -> Any:
    """What the step reads, and each of its prompts and selected responses once in a batch."""
    import torch

    from components.algorithms import leave_one_out
    from components.policy import batches
    from components.training import off_policy  # noqa: F401 - the step needs it
    from components.training.loop import Schedule

    config, data = work.config, work.scored(made["rollouts"])
    rollout, (n, k) = data.rollout, data.rollout.shape
    win_rate = leave_one_out(data.preference)
    selected = config.algorithm.select(win_rate)
    order = Schedule(config.training, 1, 1, config.seed).order(n, epoch=0)
    size, tokens = config.training.micro_batch_size, 0
    for micro in (order[i : i + size] for i in range(0, n, size)):
        responses = [rollout.tokens[i * k + j] for i in micro for j in selected[i]]
        batches.collate([rollout.prompt_tokens[i] for i in micro], responses, 0, torch.device("cpu"))
        tokens += sum(map(len, responses))
    return {"prompts": n, "responses": len(rollout.tokens), "tokens_generated": tokens}


STEPS: dict[str, Callable[[Workspace, Options, dict[str, Any]], Any]] = {
    step.__name__: step for step in (prompts, plan, rollouts, gather, train)
}
MEASURED = ("plan", "gather", "train")


def one_step(name: str, folder: Path, options: Options) -> None:
    """Runs a step on what the steps before made, and prints its result with this process's seconds and peak MB."""
    begin = time.perf_counter()
    from components.run_config import RunConfig
    from components.stages.context import open_workspace

    config = RunConfig.model_validate(
        {
            "demo": {},
            "prompts": {"per_iteration": options.prompts, "shards": options.shards},
            "generation": {"responses": options.responses},
        }
    )
    made = json.loads((folder / "made.json").read_text())
    with open_workspace(config, str(folder / "store"), "gather") as work:
        result = STEPS[name](work, options, made)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB  # Linux counts in KiB
    print(json.dumps({"result": result, "peak": peak, "seconds": time.perf_counter() - begin}))


def main() -> None:
    """Runs the steps one after the other and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60_000)
    parser.add_argument("--responses", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        one_step(options.step, options.folder, options)
        return
    print(f"{'step':8}{'peak MB':>9}{'seconds':>9}")
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Any] = {}
        for name in STEPS:
            Path(folder, "made.json").write_text(json.dumps(made))
            command = [sys.executable, __file__, *sys.argv[1:], "--step", name, "--folder", folder]
            done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            made[name] = done["result"]
            if name in MEASURED:
                print(f"{name:8}{done['peak']:9,.0f}{done['seconds']:9.1f}", flush=True)
    print(", ".join(f"{name} {count:,}" for name, count in made["gather"].items()))
    if made["train"] != made["gather"]:
        sys.exit(f"train read something else: {made['train']}")


if __name__ == "__main__":
    main()
