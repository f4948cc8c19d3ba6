"""The command `wind`: everything that a user does with runs beside running them.

What a command needs is imported when it runs, inside of what ends it in order at Ctrl-C.
"""

from __future__ import annotations

import sys

from components.runtime import interrupts

if sys.argv[0] == "-m" or sys.argv[0].endswith("wind"):  # this is the program: a second passes until `main`
    interrupts.quiet()

import argparse
import errno
import importlib
import os
import shlex
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.runtime.terminal import Parser, command, plain_errors

# A command's module, whose `main(arguments, prog)` it is, and what `wind --help` says of it.
COMMANDS = {
    "plan": ("components.plan.__main__", "tell what a config would take: GPU hours, memory, storage, money"),
    "judge": ("components.judging.__main__", "measure how far a judge agrees with labelled pairs"),
    "benchmark": ("components.benchmarking.__main__", "tell what a policy reaches in an outside benchmark"),
    "export": ("components.export", "write a run's policy as a Hugging Face directory"),
    "samples": ("components.samples.__main__", "write every prompt and response of a run into an HTML file"),
    "compare": ("components.comparison.__main__", "write a comparison's table, picture and raw results"),
    "store": ("components.store.__main__", "list, check and clean the weights store"),
    "schema": ("components.cli.schema", "print the JSON schema of a config, for editors"),
}
FLOWS = {
    "run": "align a policy",
    "create": "deploy a run to Argo Workflows",
    "flow": "Metaflow's command line for a flow: wind, compare or bandit",
}
VERBS = {"run": ["run"], "create": ["argo-workflows", "create"]}
LONGEST = 100_000  # bytes of a word that a process is started with; Linux takes 128 KiB
COMMAND = "WIND_COMMAND"  # environment variable: what the user typed, for flows to show again


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = _parser().parsed(arguments)
    if given.command in ("run", "create"):
        _run(given.command, given.arguments)
    elif given.command == "flow":
        _flow(given.arguments)
    else:
        _imported(COMMANDS[given.command][0]).main(given.arguments, prog=f"wind {given.command}")


def _imported(module: str) -> Any:
    """A module; Ctrl-C ends the process meanwhile, as pydantic makes a panic of an exception while it is imported."""
    interrupts.quiet()
    try:
        return importlib.import_module(module)
    finally:
        interrupts.heeded()


def _parser() -> Parser:
    said = {**FLOWS, **{name: what for name, (_, what) in COMMANDS.items()}}
    width = max(map(len, said))
    parser = Parser(
        prog="wind",
        description="Aligns language models with WIND.",
        epilog="\n".join(["commands:", *(f"  {name:{width}}  {what}" for name, what in said.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=said, metavar="COMMAND", help="one of those below; wind COMMAND --help")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the command")
    return parser


def _run(verb: str, arguments: list[str]) -> None:
    """Starts or deploys a run whose config is a file with settings of the command line over it."""
    _imported("components.run_config")
    from components.cli.overrides import split, with_overrides
    from components.config.paths import argument
    from components.config.strict_yaml import read_text
    from components.run_config import parse

    parser = Parser(
        prog=f"wind {verb}",
        usage=f"wind {verb} [--config FILE] [KEY=VALUE ...] [OPTION ...]",
        description=f"{FLOWS[verb].capitalize()}. Options are those of Metaflow's `{' '.join(VERBS[verb])}`.",
        epilog="Settings such as training.learning_rate=1e-5 or prompts.shards=8 replace those of the file; a value is "
        "written as in YAML. A config with a `compare` section runs all its arms.",
    )
    parser.add_argument("--config", metavar="FILE", type=argument, help="YAML file of the run; default: the demo")
    given, rest = parser.parse_known_args(arguments)
    with plain_errors():
        settings, options = split(rest)
        text = with_overrides(read_text(given.config or _folder() / "configs" / "demo.yaml"), settings)
        compared = parse(text)["compare"] is not None
    typed = shlex.join(["wind", verb, *arguments])
    if len(typed.encode("utf-8", "surrogateescape")) <= LONGEST:
        os.environ[COMMAND] = typed
    flow = f"{'compare' if compared else 'wind'}_flow.py"
    with _given(text) as config:
        _start(flow, [*config, *VERBS[verb], *options])


@contextmanager
def _given(text: str) -> Iterator[list[str]]:
    """The options of a flow that give it a config, for a process that this one becomes while this lasts."""
    data = text.encode()
    if len(data) <= LONGEST or sys.platform != "linux":  # others bound all words together
        yield ["--config-value", "config", text]
        return
    with tempfile.TemporaryFile() as file:  # gone with the last process that has it open
        file.write(data)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        yield ["--config", "config", f"/proc/self/fd/{file.fileno()}"]


def _flow(arguments: list[str]) -> None:
    names = sorted(path.stem.removesuffix("_flow") for path in _folder().glob("*_flow.py"))
    parser = Parser(prog="wind flow", description="Runs a flow with Metaflow's own command line.")
    parser.add_argument("flow", choices=names)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="as of python flows/…_flow.py")
    given = parser.parsed(arguments)
    _start(f"{given.flow}_flow.py", given.arguments)


def _start(file: str, arguments: list[str]) -> None:
    """Becomes a flow: Metaflow starts tasks from the file that its process began with.

    Ctrl-C waits until the flow's `main`, which ends in order, is there: importing all before it takes seconds.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.execv(sys.executable, [sys.executable, str(_folder() / file), *arguments])
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        sys.exit(
            "error: the command line is longer than the system takes. Write its settings into a file, and name that "
            "as --config FILE."
        )
    finally:  # where that could not be
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _folder() -> Path:
    """Where the flows lie, beside `components` in a checkout and in an installed wheel."""
    return Path(__file__).parents[2] / "flows"
