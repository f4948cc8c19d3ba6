"""What the flow costs: wall time of a run against the same stages in one process.

    python benchmarks/overhead.py [--config FILE] [--seed N] [--rounds N]

Both sides include start-up and the imports that they need; the rounds alternate, because shared machines drift.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def in_one_process(config_file: Path, seed: int, store: Path) -> None:
    """The run's stages in order, without Metaflow."""
    from components.run_config import RunConfig, parse
    from components.stages.in_process import Pipeline

    config = RunConfig.model_validate({**parse(config_file.read_text()), "seed": seed})
    started = Pipeline(config, str(store)).start()
    for iteration in Pipeline(config, str(store), precision=started.precision).iterate(started):
        last = iteration.history.iloc[-1]
        print(f"iteration {last['iteration']}: win rate {last['win_rate']:.3f}", flush=True)


def timed(command: list[str], folder: Path) -> float:
    """Wall seconds of a command that must succeed; its output goes to a file."""
    environment = {
        **os.environ,
        "METAFLOW_HOME": str(folder / "home"),
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder / "datastore"),
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
    }
    begin = time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, check=True)
    return time.perf_counter() - begin


def main() -> None:
    """Times both and prints seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "flows/configs/demo.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one-process", action="store_true", help="only the stages, in this process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.one_process:
            in_one_process(options.config, options.seed, Path(folder) / "wind_store")
            return
        ratios = []
        for number in range(options.rounds):
            shared = ["--config", str(options.config.resolve()), "--seed", str(options.seed)]
            places = [Path(folder) / f"{side}{number}" for side in ("flow", "one")]
            for place in places:
                place.mkdir()
            flow = [sys.executable, str(ROOT / "flows/wind_flow.py"), "--config", "config", shared[1]]
            seconds = timed([*flow, "run", *shared[2:]], places[0])
            alone = timed([sys.executable, __file__, "--one-process", *shared], places[1])
            ratios.append(seconds / alone)
            print(f"flow {seconds:.1f} s, one process {alone:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
