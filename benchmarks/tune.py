"""The search behind the hyper-parameters of `flows/configs/compare.yaml`: many trials of each algorithm, best first.

    python benchmarks/tune.py [--config benchmarks/search.yaml] [--folder DIR] [--output FILE]

A comparison whose arms are trials, named `<algorithm>.<number>`. Its seeds, base policy and prompts are others than
those of the comparison that the winners go into. Hours on two cores; name a folder to continue after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from components.comparison import analysis
from components.comparison.arms import run_in_process
from components.reporting.cards import StepProgress
from components.run_config import RunConfig, parse

HERE = Path(__file__).parent


def main() -> None:
    """Runs what is missing and writes one line per trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "search.yaml")
    parser.add_argument("--folder", type=Path, help="keeps finished trials")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "search.csv")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    config = RunConfig.model_validate(parse(options.config.read_text("utf-8")))
    assert config.compare is not None, f"{options.config} has no section compare"
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        with StepProgress("search") as progress:
            results = run_in_process(
                config, str(folder / "store"), processes=options.processes, folder=folder, progress=progress
            )
    table = analysis.summary(results)
    table.insert(0, "algorithm", table["arm"].str.rpartition(".")[0])
    table["settings"] = [json.dumps(config.compare.arms[arm], sort_keys=True) for arm in table["arm"]]
    table = table.sort_values(["algorithm", "win_rate"], ascending=[True, False])
    print(table.to_string(index=False, max_colwidth=80))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
