"""Runs the demo for several seeds; prints the table of the README and draws its picture.

python benchmarks/demo.py [--seeds 0 1 2] [--picture docs/demo.png]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(seed: int, folder: Path) -> tuple[str, float]:
    """Run id and wall seconds of a demo run."""
    begin = time.perf_counter()
    command = [sys.executable, str(ROOT / "flows/wind_flow.py"), "run", "--seed", str(seed)]
    with (folder / f"{seed}.txt").open("w") as output:
        files = ["--run-id-file", str(folder / "run_id")]
        subprocess.run([*command, *files], cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=True)
    return (folder / "run_id").read_text(), time.perf_counter() - begin


def main() -> None:
    """Runs, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/demo.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(METAFLOW_DATASTORE_SYSROOT_LOCAL=name, METAFLOW_HOME=name, METAFLOW_DEFAULT_DATASTORE="local")
        from metaflow import Run, namespace  # reads the environment

        from components.reporting.charts import history_figure, save_png

        namespace(None)
        print("| seed | win rate | 95 % interval | KL (nats) | reward, reference | reward | wall time |")
        print("|---|---|---|---|---|---|---|")
        for seed in options.seeds:
            run_id, seconds = run(seed, folder)
            data = Run(f"WindFlow/{run_id}").data
            last = data.history.iloc[-1]
            print(
                f"| {seed} | {last.win_rate:.3f} | {last.win_rate_low:.3f} to {last.win_rate_high:.3f} | {last.kl:.2f} "
                f"| {data.reward_reference:.3f} | {last.reward_mean:.3f} | {seconds:.0f} s |",
                flush=True,
            )
            if seed == options.seeds[0]:
                options.picture.parent.mkdir(exist_ok=True)
                save_png(history_figure(data.history, reward_reference=data.reward_reference), options.picture)


if __name__ == "__main__":
    main()
