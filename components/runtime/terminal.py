"""How a command of ours reads its options, what it says while it works, and how it ends."""

from __future__ import annotations

import argparse
import functools
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

from components.config.errors import UserError
from components.runtime import interrupts, outputs
from components.runtime.heartbeat import Heartbeat

_JOINERS = "\u200c\u200d"  # of letters and of parts of emoji: they turn nothing round and hide nothing
_KEPT = "\n\t" + _JOINERS
_CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of what is no sign but does something
Taken = ParamSpec("Taken")


def command(main: Callable[Taken, None]) -> Callable[Taken, None]:
    """A command's `main` that Ctrl-C ends with one line and status 130, and output that nobody takes without a word."""

    @functools.wraps(main)
    def run(*words: Taken.args, **settings: Taken.kwargs) -> None:
        try:
            interrupts.heeded()
            with outputs.checked():
                main(*words, **settings)
        except KeyboardInterrupt:
            print("\ninterrupted" if sys.stderr.isatty() else "interrupted", file=sys.stderr)
            sys.exit(interrupts.INTERRUPTED)

    return run


@contextmanager
def plain_errors(written: Path | None = None) -> Iterator[None]:
    """A UserError ends the process with its message and status 1; so does a directory that cannot be written."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {visible(str(error))}")
    except OSError as error:
        if written is None:
            raise
        sys.exit(f"error: {written}: cannot be written ({error.strerror}). Name another directory.")


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Says on stderr what is being done that may take long, and now and then that it still is.

    Gives what is to be told of all other news.
    """
    print(visible(f"{what} …"), file=sys.stderr, flush=True)
    with Heartbeat(visible(what)) as heartbeat:
        yield heartbeat.heard


def visible(text: str) -> str:
    r"""Text as a terminal may show it, control codes as escapes: `\x1b[2J` does not clear it, `\u202e` turns nothing.

    Ends of lines and tabs stay, as does what joins letters.
    """
    if text.isprintable():
        return text
    return "".join(sign if _shown(sign) else sign.encode("unicode_escape").decode("ascii") for sign in text)


def _shown(sign: str) -> bool:
    return sign in _KEPT or unicodedata.category(sign) not in _CONTROL


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names, and those of one value once: else the last would win without a word."""

    def __init__(self, **settings: Any) -> None:
        """As of argparse."""
        super().__init__(**{"allow_abbrev": False, **settings})
        for action in (None, "store"):
            self.register("action", action, _Once)

    def error(self, message: str) -> NoReturn:
        """As of argparse; what a message repeats of the command line shows its control codes."""
        super().error(visible(message))

    def parsed(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Those of the command line, None for this process's own; without a word it prints its help, with status 2."""
        words = sys.argv[1:] if arguments is None else arguments
        if not words:
            self.print_help(sys.stderr)
            sys.exit(2)
        return self.parse_args(words)


class _Once(argparse.Action):
    """Stores a value, once in a command line."""

    _given_in: argparse.Namespace | None = None

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if option_string is not None:
            if self._given_in is namespace:
                raise argparse.ArgumentError(self, "is given twice. Give it once.")
            self._given_in = namespace
        setattr(namespace, self.dest, values)
