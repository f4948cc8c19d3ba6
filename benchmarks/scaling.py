"""What a prompt costs beside the model, in iterations of 1,000 to 50,000 prompts: it should not depend on how many.

    python benchmarks/scaling.py [--prompts 1000 5000 20000 50000] [--responses 8] [--tokens 12] [--shards 4]

Random prompts and responses of `--tokens` tokens on average go through a local store: planned, written as `generate`
does, judged and batched as `score` does, gathered, and read and batched as `train` does, all without a forward pass.
Each number of prompts has a process of its own. Processor seconds, which other work on the machine hardly changes; the
least of `--repeats`. Writes benchmarks/results/scaling.json.
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
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a child's peak starts from its parent's memory, so this process stays small
    from components.data.records import Ragged, Rollout
    from components.stages.context import Workspace

RESULTS = Path(__file__).parent / "results" / "scaling.json"
WARM = 200  # prompts
STEPS = ("plan", "score", "gather", "train")
Options = argparse.Namespace


def length(response: str, prompt: Any) -> float:
    """The judge."""
    return float(len(response))


def drawn(n: int, options: Options) -> tuple[list[Any], Rollout]:
    """Prompts and responses."""
    import numpy as np

    from components.data.records import Prompt, Ragged, Rollout

    rng, k = np.random.default_rng(0), options.responses

    def tokens(count: int) -> Ragged:
        lengths = rng.integers(options.tokens // 2, 2 * options.tokens - options.tokens // 2 + 1, size=count)
        return Ragged(
            rng.integers(4, 32_000, size=lengths.sum(), dtype=np.int32), np.concatenate([[0], lengths.cumsum()])
        )

    asked = [Prompt(f"p{i}", ({"role": "user", "content": f"question {i}"},), str(i), {"row": i}) for i in range(n)]
    finished, logp = np.ones((n, k), bool), rng.normal(-20, 3, size=(n, k))
    texts = [f"answer {number}" for number in rng.integers(10**6, size=n * k)]
    return asked, Rollout([p.id for p in asked], tokens(n), tokens(n * k), texts, finished, logp)


def part(rollout: Rollout, begin: int, end: int) -> Rollout:
    """Some prompts of a rollout."""
    from components.data.records import Ragged, Rollout

    def rows(ragged: Ragged, a: int, b: int) -> Ragged:
        offsets = ragged.offsets[a : b + 1]
        return Ragged(ragged.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    k, logp = rollout.shape[1], rollout.logp_engine
    assert logp is not None
    return Rollout(
        rollout.prompt_ids[begin:end],
        rows(rollout.prompt_tokens, begin, end),
        rows(rollout.tokens, begin * k, end * k),
        rollout.texts[begin * k : end * k],
        rollout.finished[begin:end],
        logp[begin:end],
    )


def score(work: Workspace, shard: Any, generated: Any) -> Any:
    """A shard judged and put into batches, with made-up log-probs."""
    from components.data import rollouts
    from components.data.records import Scored
    from components.policy.logprobs import _scoring_batches
    from components.runtime.progress import silent
    from components.stages import sampling

    responses = work.rollout(generated)
    judgement = sampling.judge(work.config.judge, work.prompts(shard, "shard"), [responses])
    for _ in range(2):  # under the policy and under the reference
        for _batch in _scoring_batches(policy(), responses.prompt_tokens, responses.tokens, 8192, silent):
            pass
    logp = responses.logp_engine
    assert logp is not None
    scored = Scored(responses, logp, logp - 1, judgement.preference, judgement.reward)
    return work.keep("rollout.parquet", lambda path: rollouts.save_scored(scored, path))


def train(work: Workspace, scored: Any) -> None:
    """What training does beside the model: reads, selects, and makes the batches of all steps."""
    import numpy as np

    from components.training.groups import _batch, length_for, selected
    from components.training.loop import Schedule
    from components.training.off_policy import shares

    config, data = work.config, work.scored(scored)
    selection = selected(data, config.algorithm)
    prompts = np.flatnonzero(config.algorithm.informative(selection.win_rate))
    for chosen in Schedule(config.training, 1, 1, config.seed).batches(prompts):
        length_for(config.algorithm, data, selection, chosen)
        for micro, _ in shares(data, chosen, config.training.micro_batch_size):
            _batch(policy(), data, micro, selection.indices[micro])


def policy() -> Any:
    """As much of a policy as batches need."""
    import torch

    return SimpleNamespace(pad_id=0, device=torch.device("cpu"), sharded=None, shares_prompts=True, caching="shared")


def measure(n: int, options: Options) -> dict[str, Any]:
    """Processor seconds of each step, and megabytes."""
    import torch

    from components import prompts, stages
    from components.run_config import RunConfig, parse
    from components.stages.context import open_workspace

    torch.set_num_threads(1)
    config = RunConfig.model_validate(
        parse(
            f"demo: {{}}\nprompts: {{per_iteration: {n}, shards: {options.shards}}}\n"
            f"judge: {{name: verifier, function: '{Path(__file__).resolve()}:length'}}\n"
            f"generation: {{responses: {options.responses}}}\ntraining: {{epochs: 1}}"
        )
    )
    seconds: dict[str, float] = {}

    def timed(name: str, do: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = do()
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - begin
        return result

    with tempfile.TemporaryDirectory() as root, open_workspace(config, root, "train") as work:
        asked, rollout = drawn(n, options)
        kept = work.keep("train.jsonl", lambda path: prompts.save(asked, path))
        before, seconds = peak(), {}
        shards = timed("plan", lambda: stages.plan(work, kept, 1))
        generated, begin = [], 0
        for shard in shards:
            end = begin + len(work.prompts(shard, "shard"))
            piece = part(rollout, begin, end)
            piece.prompt_ids[:] = [prompt.id for prompt in work.prompts(shard, "shard")]
            generated.append(work.keep_rollout(piece))
            begin = end
        scored = [timed("score", lambda s=s, g=g: score(work, s, g)) for s, g in zip(shards, generated, strict=True)]
        assert timed("gather", lambda: stages.gather(work, shards, scored))["prompts"] == n
        timed("train", lambda: train(work, scored))
    return {"seconds": seconds, "megabytes": peak() - before}


def peak() -> float:
    """Megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def child(n: int, given: list[str]) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, *given, "--child", str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def options_of(given: list[str]) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1000, 5000, 20_000, 50_000])
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: list[str]) -> None:
    """Measures, prints a table and writes the figures."""
    options = options_of(given)
    if options.child:
        measure(WARM, options)  # the first call imports
        print(json.dumps(measure(options.child, options)))
        return
    rows = []
    print("   prompts" + "".join(f"{step:>10}" for step in STEPS) + "       all   memory   (us a prompt; MB)")
    for n in options.prompts:
        found = [child(n, given) for _ in range(options.repeats)]
        each = {step: 1e6 * min(one["seconds"][step] for one in found) / n for step in STEPS}
        row = {"prompts": n, "microseconds": each, "megabytes": min(one["megabytes"] for one in found)}
        rows.append(row)
        cells = "".join(f"{value:10.1f}" for value in [*each.values(), sum(each.values())])
        print(f"{n:10,}{cells}{row['megabytes']:9.0f}", flush=True)
    settings = {name: getattr(options, name) for name in ("responses", "tokens", "shards")}
    RESULTS.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
