"""Measures how far a judge can be trusted before it costs a run.

    wind judge CONFIG PAIRS.jsonl [DIR]

Each line of PAIRS.jsonl is `{"prompt" or "messages", "chosen", "rejected"}`; people preferred the chosen response.
"""

from __future__ import annotations

from pathlib import Path

from components.config.errors import UserError
from components.config.paths import argument
from components.config.schema import Section, validated
from components.config.strict_yaml import load_yaml, read_text
from components.judges import Judge
from components.judging.measures import ask, measure
from components.judging.pairs import read_pairs
from components.run_config import checked
from components.run_config.fields import JudgeField
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting
from components.store.files import try_replacing

FILES = ("judge.json", "judge.png")  # in the directory


class JudgeAlone(Section):
    """A config of nothing but a judge."""

    judge: JudgeField


def judge_of(path: Path) -> Judge:
    """The judge of a run's config, or of a file with a section `judge` alone. Raises ConfigError."""
    values = load_yaml(read_text(path))
    return validated(JudgeAlone, values).judge if values.keys() == {"judge"} else checked(values).judge


def check(path: Path) -> None:
    """Before it costs anything: can this file be written?

    Raises UserError where a directory or what else is no file has the name, OSError where no file can be made.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is there already and is no file. Remove it, or name another directory.")
    try_replacing(path)


@command
def main(arguments: list[str] | None = None, prog: str = "wind judge") -> None:
    """The command line; see `plain_errors`."""
    parser = Parser(
        prog=prog,
        description="Measures how far a judge agrees with labelled pairs, and writes judge.json and judge.png.",
    )
    parser.add_argument(
        "config", metavar="CONFIG", type=argument, help="a run's YAML file, or one with a section judge alone"
    )
    parser.add_argument(
        "pairs", metavar="PAIRS.jsonl", type=argument, help='lines of {"prompt" or "messages", "chosen", "rejected"}'
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", type=argument, help="default: ./judge")
    given = parser.parse_args(arguments)
    directory = given.directory or Path("judge")
    with plain_errors():
        judge, pairs = judge_of(given.config), read_pairs(given.pairs)
    with plain_errors(written=directory):
        directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        with plain_errors(written=directory / name):
            check(directory / name)
    with plain_errors():
        with waiting(f"checking the judge {judge.name}"):
            judge.check()
        from components.reporting.cards import StepProgress

        doing = f"asking it about {len(pairs):,} pair{'s' * (len(pairs) != 1)}"
        with waiting(doing) as heard, StepProgress("judge pairs", heard=heard) as progress:
            verdicts = ask(judge, pairs, progress)
    from components.judging import report  # draws, which takes a second to import

    rates = measure(verdicts)
    try:
        print(visible(report.text(judge, verdicts, rates)))
    finally:  # verdicts cost money: neither a full disk loses the table, nor a closed terminal the files
        with plain_errors(written=directory):
            report.write(judge, verdicts, rates, directory)
    print(f"\n{directory} has {' and '.join(FILES)}.")


if __name__ == "__main__":
    main()
