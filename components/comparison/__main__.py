"""Writes the results of a finished comparison as comparison.csv, comparison.png and comparison.md.

    wind compare CompareFlow/RUN DIR

Run it where the flow ran, as `wind export`.
"""

from __future__ import annotations

from pathlib import Path

from components.comparison import report
from components.config.paths import argument
from components.runtime.terminal import Parser, command, plain_errors, waiting


@command
def main(arguments: list[str] | None = None, prog: str = "wind compare") -> None:
    """The command line; see `plain_errors`."""
    from components.stages.runs import finished

    parser = Parser(
        prog=prog,
        description="Writes the results of a finished comparison as comparison.csv, comparison.png and comparison.md.",
    )
    parser.add_argument("run", metavar="CompareFlow/RUN", help="such as CompareFlow/1795473051411960")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=argument, help="default: ./comparison")
    given = parser.parse_args(arguments)
    directory = given.directory or Path("comparison")
    with waiting(f"reading {given.run}"), plain_errors(written=directory):
        data = finished(given.run, flow="CompareFlow", result="comparison", artifacts=("results", "reach"))
        report.write(data.results, data.reach, directory, title=given.run)
    print(f"The results of {given.run} are in {directory}: comparison.csv, comparison.png and comparison.md.")


if __name__ == "__main__":
    main()
