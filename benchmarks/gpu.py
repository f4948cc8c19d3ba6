"""A whole iteration of a Qwen of 0.5 B random weights: seconds, tokens per second, memory and utilisation of each step.

    python benchmarks/gpu.py [--engine transformers] [--prompts 128] [--responses 8] [--tokens 256] [--small]

The stages run in one process, without Metaflow. Seconds are those of whole steps, with loading, judging and the store.
Utilisation is `components.plan.costs`' count of operations over what the GPU's peak would do in that time. Prints a
table, and a line of JSON for benchmarks/results. `--small` runs a tiny model, to see that all of it works.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from components.plan import costs, models
from components.plan.costs import Lengths
from components.plan.table import GPUS, Gpu
from components.reporting.text import aligned
from components.run_config import RunConfig, checked
from components.stages.context import Workspace
from components.stages.in_process import Pipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.models.families import FAMILIES, save_policy

QWEN_05B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
STEPS = ("generate", "score", "train", "evaluate")
JUDGE = "def score(response, prompt):\n    return len(set(response))\n"


class Measured(Pipeline):
    """A pipeline that notes the peak memory of each kind of step, in bytes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.peaks: dict[str, int] = {}

    @contextmanager
    def _work(self, kind: str) -> Iterator[Workspace]:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with super()._work(kind) as work:
            yield work
        if torch.cuda.is_available():
            self.peaks[kind] = max(self.peaks.get(kind, 0), torch.cuda.max_memory_allocated())


def make_config(folder: Path, options: argparse.Namespace) -> RunConfig:
    """A run of one iteration on what it writes into the folder: model, prompts, judge."""
    save_policy(FAMILIES["qwen2.5"], folder / "policy", **({} if options.small else QWEN_05B))
    prompts = [{"prompt": f"Write {i} lines about the number {i * i}."} for i in range(2 * options.prompts)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    (folder / "judge.py").write_text(JUDGE)
    return checked(
        {
            "iterations": 1,
            "policy": {"model": str(folder / "policy")},
            "prompts": {
                "train": str(folder / "prompts.jsonl"),
                "per_iteration": options.prompts,
                "held_out": options.prompts // 2,
                "shards": 1,
            },
            "generation": {
                "engine": {"name": options.engine},
                "responses": options.responses,
                "max_new_tokens": options.tokens,
            },
            "judge": {"name": "verifier", "function": f"{folder / 'judge.py'}:score"},
            "training": {"batch_size": 16, "micro_batch_size": 4},
        }
    )


def measure(config: RunConfig, store: str) -> list[dict[str, float | str]]:
    """What each step took."""
    started = Pipeline(config, store).start()
    pipeline = Measured(config, store, precision=started.precision)
    history = pipeline.run(started)
    row = history.iloc[0]
    lengths = Lengths(prompt=30, response=float(row["tokens_generated"] / row["responses"]))
    work = costs.work(config, models.sizes(config, {}), lengths)
    peak = peak_of(started.precision)
    tokens = {step: float(row["tokens_generated"]) for step in STEPS}
    tokens["evaluate"] = float(row["response_length"]) * config.prompts.held_out * config.evaluation.responses
    return [
        {
            "step": step,
            "seconds": pipeline.seconds[step],
            "response tokens/s": tokens[step] / pipeline.seconds[step],
            "peak GB": pipeline.peaks.get(step, 0) / 1e9,
            "utilisation": work[step].total / (pipeline.seconds[step] * peak) if peak else float("nan"),
        }
        for step in STEPS
    ]


def peak_of(precision: str) -> float | None:
    """Operations a second of this machine's GPU; None for one that `components.plan.table` does not know."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    known: list[Gpu] = [gpu for short, gpu in GPUS.items() if short in name.replace(" ", "")]
    return getattr(known[0], precision) if known else None


def machine() -> dict[str, str]:
    """Where, and with what, this was measured."""
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    return {"device": device, "torch": torch.__version__, "transformers": transformers.__version__}


def main() -> None:
    """Measures, and prints table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(make_config(Path(name), options), f"{name}/store")
    cells = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    print(aligned(list(rows[0]), cells, labels=1))
    print(json.dumps({**machine(), **vars(options), "steps": rows}))


if __name__ == "__main__":
    main()
