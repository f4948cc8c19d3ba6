"""Algorithms side by side, all branches in a few processes and without Metaflow: what docs/comparison.md shows.

    python benchmarks/compare.py [--config FILE] [--folder DIR] [--output docs]

Figures are those of `python flows/compare_flow.py run`, wall times excepted: here no step pays for its imports.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from components.comparison import analysis, report
from components.comparison.arms import run_in_process
from components.reporting.cards import StepProgress
from components.run_config import RunConfig, parse

ROOT = Path(__file__).parents[1]
TITLE = "Algorithms on the demo's task"  # begins what is generated in docs/comparison.md, behind the guide


def main() -> None:
    """Runs what is missing, prints the tables, writes CSV, picture and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "flows/configs/compare.yaml")
    parser.add_argument("--folder", type=Path, help="keeps finished branches, to continue after an interruption")
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    config = RunConfig.model_validate(parse(options.config.read_text("utf-8")))
    assert config.compare is not None, f"{options.config} has no section compare"
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        with StepProgress("compare") as progress:
            results = run_in_process(
                config, str(folder / "store"), processes=options.processes, folder=folder, progress=progress
            )
    reach = analysis.to_reach(results, analysis.levels(results, config.compare.levels))
    print(report.text(results, reach))
    page = options.output / "comparison.md"
    guide, found, _ = page.read_text("utf-8").partition(f"# {TITLE}\n") if page.exists() else ("", "", "")
    report.write(results, reach, options.output, title=TITLE)
    if found:
        page.write_text(guide + page.read_text("utf-8"), encoding="utf-8")
    print(f"\n{time.perf_counter() - begin:.0f} s; comparison.csv, .png and .md are in {options.output}")


if __name__ == "__main__":
    main()
