"""Python processes that begin as copies of the tests' own, which has torch in memory: importing it takes seconds."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Never

LONGEST = 900  # seconds that such a process may live: one that hangs is to fail its test


def forked(args: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`Popen` for `[sys.executable, "-P", "-m", module or "-c", code, *arguments]`, forked instead of executed.

    It has the memory of the tests' process, patches among it, and its open files. Whoever tests how a process starts
    or what it imports starts a real one. One thread computes: those of OpenMP do not live on in a copy.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    become = partial(_become, args, options.get("env"), _open_files())
    return subprocess.Popen(args, preexec_fn=become, **options)  # noqa: PLW1509 - a copy is what is wanted


# What modules that start processes see in place of `subprocess`.
forking = SimpleNamespace(**{**vars(subprocess), "Popen": forked})


def _open_files() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - numbers, not paths


def _become(args: Sequence[str], env: Mapping[str, str] | None, kept: set[int]) -> Never:
    """Runs the command in this process and ends it, so that nothing is executed in its place.

    Popen has given it its standard streams and its working directory. It waits for the end of a pipe that an
    executed program would not have: all files are closed that it has opened since those `kept`.
    """
    status = 1
    try:
        warnings.resetwarnings()  # as in a process of its own, and not as in a test
        gc.freeze()  # what the tests' process holds is not this one's to close
        gc.enable()  # which Popen does not before a program is executed
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python does when it starts
        signal.alarm(LONGEST)
        for file in _open_files() - kept - {number for number, _ in _FILES}:
            with suppress(OSError):  # the one through which they were listed
                os.close(file)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in _FILES)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        status = _status_of(args)
    except BaseException:  # noqa: BLE001 - nothing may leave this copy of the tests' process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


_FILES = ((0, "r"), (1, "w"), (2, "w"))


def _status_of(args: Sequence[str]) -> int:
    import torch

    torch.set_num_threads(1)
    kind, what, *arguments = (argument for argument in args[1:] if argument != "-P")
    sys.argv = [what if kind == "-m" else kind, *map(str, arguments)]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
