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
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Never

LONGEST = 900  # seconds that such a process may live: one that hangs is to fail its test


class Forked(subprocess.Popen):
    """`Popen` for `[sys.executable, "-P", "-m", module or "-c", code, *arguments]`, forked instead of executed.

    It has the memory of the tests' process, patches among it, and its open files. Whoever tests how a process starts
    or what it imports starts a real one. One thread computes: those of OpenMP do not live on in a copy.
    """

    def _execute_child(self, args: Sequence[str], *rest: Any) -> None:
        """Takes the place of the private method that forks and executes; its arguments are those of Python 3.11."""
        _, _, _, _, cwd, env, _, _, _, *pipes, _, _, _, _, _, new_session, _ = rest
        read_in, write_in, read_out, write_out, read_err, write_err = pipes
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(args, cwd, env, (read_in, write_out, write_err), (write_in, read_out, read_err), new_session)
        self._child_created = True
        self._close_pipe_fds(*pipes)


# What modules that start processes see in place of `subprocess`.
forking = SimpleNamespace(**{**vars(subprocess), "Popen": Forked})


def _become(
    args: Sequence[str], cwd: Any, env: Any, own: Sequence[int], others: Sequence[int], new_session: bool
) -> Never:
    """Runs the command in this process and ends it."""
    status = 1
    try:
        warnings.resetwarnings()  # as in a process of its own, and not as in a test
        gc.freeze()  # what the tests' process holds is not this one's to close
        signal.alarm(LONGEST)
        for number, file in enumerate(own):
            if file != -1:
                os.dup2(file, number)
        for file in {*own, *others}:
            if file > 2:
                os.close(file)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in _FILES)
        if new_session:
            os.setsid()
        if cwd is not None:
            os.chdir(cwd)
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
