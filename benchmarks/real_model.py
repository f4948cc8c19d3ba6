"""Trains a real language model on the task of examples/smollm2 with one algorithm after another, in one process each.

    python benchmarks/real_model.py MODEL_DIR ARMS.jsonl RESULTS.jsonl [--processes 1] [--search]

Each line of ARMS.jsonl is an arm, see `Arm`; each line of RESULTS.jsonl what came of one, appended as it ends, so that
a call that was cut off continues with the arms that are missing. With --search, nine of the training topics are held
out of training and evaluated on; without, the evaluation prompts of the example are. The stages are those of a run,
without store and files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from real_model_on_policy import OnPolicyRun
from real_model_run import Arm, Run

from components.algorithms import BaseAlgorithm
from components.config import registry
from components.runtime.processes import die_with_parent

Job = tuple[type[Run] | None, dict[str, Any], Path, bool, Path]  # what `_one` is given


def run_of(arm: Arm) -> type[Run]:
    """How an arm is run, which is a matter of its algorithm."""
    name = arm.algorithm["name"]
    on_policy = name in registry.names("algorithms") and registry.find("algorithms", name, BaseAlgorithm).on_policy
    return OnPolicyRun if on_policy else Run


def _alone(job: Job) -> None:
    """One arm in a process of its own, which dies with the thread that waits here for it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=die_with_parent, initargs=(os.getpid(),)) as process:
        process.submit(_one, job).result()


def _one(job: Job) -> None:
    other, values, directory, search, results = job
    torch.set_num_threads(1 if torch.cuda.is_available() else int(os.environ.get("OMP_NUM_THREADS", "2")))
    arm = Arm(**values)
    kind = other or run_of(arm)
    begin = time.perf_counter()
    found: dict[str, Any]
    try:
        found = kind(arm, directory, search).results()
    except FloatingPointError as error:  # a diverged arm is a result
        found = {"failed": str(error)}
    line = {"arm": asdict(arm), "search": search, **found, "seconds": time.perf_counter() - begin}
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(
        f"{arm.name} seed {arm.seed}: {found.get(kind.headline, found.get('failed'))}, {line['seconds']:.0f} s",
        flush=True,
    )


def main(kind: type[Run] | None = None) -> None:
    """See the module; `kind` is another task than the example's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("arms", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    done = set()
    if options.results.exists():
        done = {json.dumps(json.loads(line)["arm"], sort_keys=True) for line in options.results.open()}
    known = {one.name for one in fields(Arm)}
    arms = [json.loads(line) for line in options.arms.read_text().splitlines() if line.strip()]
    assert all(set(arm) <= known for arm in arms)
    todo = [arm for arm in arms if json.dumps(asdict(Arm(**arm)), sort_keys=True) not in done]
    jobs = [(kind, arm, options.model, options.search, options.results) for arm in todo]
    with ThreadPoolExecutor(options.processes) as threads:
        for _ in threads.map(_alone, jobs):
            pass


if __name__ == "__main__":
    main()
