"""A whole iteration of WIND beside one of TRL's GRPO: judged completions per second, and peak memory.

    pip install --no-deps trl==1.16.0 accelerate==1.15.0
    python benchmarks/against_trl.py [--cases demo,llama,smollm2] [--precisions fp32,bf16] [--rounds 5]
    python benchmarks/against_trl.py --cases half-billion --precisions bf16      # on a GPU; its peak of memory
    python benchmarks/against_trl.py --check       # measures anew; fails if a ratio is over 5 % below the recorded one

Both sides have the same model, prompts, completions per prompt, tokens, passes of training, optimiser steps, judge and
precision, and both have a KL term to the base policy. A side's iteration is what it does between two calls of its
sampler: draw, judge, log-probs, train. Loading and imports are not counted; neither side writes files. Each
measurement is a process of its own, pinned to `--threads` cores, and the sides take turns. The results are
benchmarks/results/against_trl.json, and `against_trl_table.py` makes docs/speed.md of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from against_trl_cases import CASES, SIDES, Measured, versions
from against_trl_models import write_models

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "against_trl.json"
LOSS = 0.05  # of a ratio that --check takes for noise


def measured(side: str, case: str, precision: str, threads: int, models: Path) -> Measured:
    """One iteration in a process of its own."""
    command = [sys.executable, str(HERE / "against_trl_cases.py"), side, case, precision, str(models / case)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, range(threads)),
    )
    if done.returncode:
        sys.exit(done.stderr)  # which else tells of bars and versions
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compared(case: str, precision: str, threads: int, rounds: int, models: Path) -> dict[str, Any]:
    """Both sides in turn; medians over rounds, and of the ratios too."""
    found: dict[str, list[Measured]] = {side: [] for side in SIDES}
    for round_ in range(rounds):
        for side in SIDES:
            one = measured(side, case, precision, threads, models)
            found[side].append(one)
            print(f"{case} {precision} round {round_ + 1}: {side} {one.rate:.3f}/s, {one.megabytes:.0f} MB", flush=True)
    pairs = list(zip(*found.values(), strict=True))
    return {
        "case": case,
        "precision": precision,
        "threads": threads,
        "ratio": statistics.median(ours.rate / theirs.rate for ours, theirs in pairs),
        "memory_ratio": statistics.median(ours.megabytes / theirs.megabytes for ours, theirs in pairs),
        **{side: [vars(one) for one in rows] for side, rows in found.items()},
    }


def key(row: dict[str, Any]) -> tuple[str, str, int]:
    """What two measurements of one kind have in common."""
    return row["case"], row["precision"], row["threads"]


def recorded() -> dict[tuple[str, str, int], dict[str, Any]]:
    """The rows of the results' file."""
    return {key(row): row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}


def lost(rows: list[dict[str, Any]]) -> list[str]:
    """The rows whose ratio is lower than the recorded one, as sentences."""
    before = recorded()
    return [
        f"{' '.join(map(str, key(row)))}: {row['ratio']:.2f} times TRL, recorded was {before[key(row)]['ratio']:.2f}"
        for row in rows
        if key(row) in before and row["ratio"] < (1 - LOSS) * before[key(row)]["ratio"]
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="demo,llama,smollm2")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="compare with what is recorded, and record nothing")
    options = parser.parse_args()
    if unknown := set(options.cases.split(",")) - set(CASES):
        parser.error(f"--cases: {', '.join(sorted(unknown))} is none of {', '.join(CASES)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), options.cases.split(","))
        for case in options.cases.split(","):
            for precision in options.precisions.split(","):
                rows.append(compared(case, precision, options.threads, options.rounds, Path(folder)))
                print(f"{case} {precision}: {rows[-1]['ratio']:.2f} times, memory {rows[-1]['memory_ratio']:.2f}")
                if not options.check:
                    kept = recorded() | {key(row): row | versions() for row in rows}
                    when = datetime.now(UTC).strftime("%Y-%m-%d")
                    RESULTS.write_text(json.dumps({"measured": when, "rows": list(kept.values())}, indent=1) + "\n")
    if options.check and (worse := lost(rows)):
        sys.exit("\n".join(worse))


if __name__ == "__main__":
    main()
