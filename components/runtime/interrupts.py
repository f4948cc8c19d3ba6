"""Ctrl-C while a program still imports what it needs, before anything is there that could end it in order."""

from __future__ import annotations

import os

try:
    import signal
except KeyboardInterrupt:
    os._exit(130)

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it: 128 + SIGINT


def quiet() -> None:
    """Has Ctrl-C end this process at once, with one line and status 130, until `heeded`; the first thing it does."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def heeded() -> None:
    """Has Ctrl-C raise KeyboardInterrupt again: whoever calls this catches it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os.write(2, b"\ninterrupted\n" if os.isatty(2) else b"interrupted\n")
    os._exit(INTERRUPTED)
