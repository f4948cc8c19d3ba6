"""Writes the results of a finished comparison as comparison.csv, comparison.png and comparison.md.

    python -m components.comparison CompareFlow/RUN DIR

Run it where the flow ran, as `components.export`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from components.comparison import report
from components.config.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """The command line; a UserError ends it with its message and status 1."""
    from components.stages.runs import finished

    parser = argparse.ArgumentParser(
        prog="python -m components.comparison",
        description="Writes the results of a finished comparison as comparison.csv, comparison.png and comparison.md.",
    )
    parser.add_argument("run", metavar="CompareFlow/RUN", help="such as CompareFlow/1795473051411960")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, help="default: ./comparison")
    given = parser.parse_args(arguments)
    directory = given.directory or Path("comparison")
    try:
        data = finished(given.run, flow="CompareFlow", result="comparison", artifacts=("results", "reach"))
        report.write(data.results, data.reach, directory, title=given.run)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {directory}: cannot be written ({error.strerror}). Name another directory.")
    print(f"The results of {given.run} are in {directory}: comparison.csv, comparison.png and comparison.md.")


if __name__ == "__main__":
    main()
