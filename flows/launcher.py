"""How a flow's command line begins and ends: what is checked before a resume, and what is said when a run failed."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from metaflow import current, runtime
from metaflow.exception import MetaflowException

import command_line
import live_terminal
import plain
import warm
from components.cli import COMMAND
from components.config.errors import UserError
from components.reporting import commands
from components.runtime import processes, screen
from components.runtime.terminal import command, visible
from components.stages import runs
from components.store import open_store, store_root

LAUNCHER = "WIND_LAUNCHER"  # environment variable: process id of what starts a run's tasks on this machine
ORIGIN = "--origin-run-id="
LOCAL_ROOT = "METAFLOW_DATASTORE_SYSROOT_LOCAL"
KEPT = ("--datastore", "--datastore-root", "--metadata", "--environment")  # options that a resume needs again
FLOWS = {"WindFlow": "wind_flow.py", "CompareFlow": "compare_flow.py", "BanditFlow": "bandit_flow.py"}
PUT_RIGHT = {"BadConfig", "BadRun"}  # errors of base.py that a user can put right
# Metaflow's own limit on the tasks of a foreach, 100, is against mistakes; here they follow from the config.
MOST_SPLITS = "100000"


class ResumeError(UserError):
    """A run that cannot be resumed."""


@command
def main(flow: Any) -> None:
    """Runs the command line of a flow, a FlowSpec as its decorators left it.

    After a failed run or resume, says what killed it and the command that resumes it.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by `wind run` since it began
    # Metaflow looks for the origin's config under the option as a word of its own, or else takes another run's.
    sys.argv = [part for word in sys.argv for part in (word.split("=", 1) if word.startswith(ORIGIN) else [word])]
    launched = command_line.LAUNCHING & set(sys.argv[1:])
    written = getattr(flow, "_flow_cls", flow)  # mutators wrap it
    came: list[int] = []
    if launched:
        os.environ[LAUNCHER] = str(os.getpid())
        os.environ.pop(processes.PARENT, None)  # of a run that a task starts
        for command in ("RUN", "RESUME"):
            os.environ.setdefault(f"METAFLOW_{command}_MAX_NUM_SPLITS", MOST_SPLITS)
        # Else Metaflow names all steps that have not started, every five minutes; `evaluate` says what is to come.
        runtime.PROGRESS_INTERVAL = math.inf
        came = processes.end_with_children()
    elif "step" in sys.argv[1:]:
        # Before torch is imported. A thread that waits by turning in circles takes a core from whoever has work: where
        # another process runs as well, two threads took over twice as long as so, where none does a tenth less.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        processes.end_in_order()
        parent = os.environ.get(processes.PARENT) or os.environ.get(LAUNCHER)  # on a cluster there is none
        processes.die_with_parent(int(parent) if parent else None)
        os.environ[processes.PARENT] = str(os.getpid())
        if "ubf_control" in sys.argv:  # of several nodes on this machine Metaflow starts the others as `python`
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        if "step" not in sys.argv[1:]:  # a task is given its config
            command_line.check(sys.argv[1:])
        if launched:
            os.environ[command_line.AT_ONCE] = str(command_line.workers(sys.argv[1:]))
        if (launched or {"argo-workflows", "create"} <= {*sys.argv}) and "--help" not in sys.argv:
            check_s3(sys.argv[1:])
        if "resume" in launched and "--help" not in sys.argv:
            check_resume(written.__name__, sys.argv[1:])
        with (
            plain.told(written),
            live_terminal.shown(written) if launched and screen.can_redraw() else nullcontext(),
            warm.warmed() if launched else nullcontext(),
        ):
            flow()
    except UserError as error:
        sys.exit(f"error: {visible(str(error))}")
    except SystemExit as stop:
        if stop.code and launched and current.run_id:
            print(f"\n{visible(_after(f'{current.flow_name}/{current.run_id}', came))}", file=sys.stderr)
        if came:
            sys.exit(128 + came[0])  # as shells have it; Metaflow ends with 1
        raise


def _after(run: str, came: Sequence[int]) -> str:
    """What to do about a failed run."""
    ended = runs.killed(run) if not came else []
    said = [f"{commands.killed(step)}\n" for step in ended]
    again = commands.resume_command(script(), run.split("/")[1], kept_options(sys.argv[1:]), run_folder())
    faults = set() if came or ended else runs.faults(run)
    anew = commands.command_line(_anew(sys.argv[1:]), run_folder())
    kinds = {kind for _, kind in faults}
    if {step for step, _ in faults} == {"start"} and kinds <= PUT_RIGHT:
        same = "" if "BadConfig" in kinds else f"\nIf the config can stay as it is, this does as well:\n  {again}"
        return f"When that is put right, run it again; a resumed run would keep its config:\n  {anew}{same}"
    if {"BadConfig", "FloatingPointError"} & kinds:  # the latter where training diverged
        keep = f"; to keep what this one has trained, add `start_from: {run}`" if run.startswith("WindFlow/") else ""
        return f"A resumed run keeps its config. Correct it, and begin a new run{keep}:\n  {anew}"
    return "\n".join([*said, f"To resume it where it failed:\n  {again}"])


def _anew(arguments: Sequence[str]) -> list[str]:
    """The command line of a run in the place of this one."""
    if "resume" in arguments:
        return ["python", script(), *kept_options(arguments), "--config", "config", "FILE", "run"]
    return shlex.split(os.environ.get(COMMAND, "")) or ["python", script(), *arguments]


def script() -> str:
    """The flow's file as a user gives it: here from any directory, for one in a pod from the project's own."""
    path = Path(sys.argv[0]).resolve()
    return str(path) if LAUNCHER in os.environ else f"flows/{path.name}"


def run_folder() -> str | None:
    """The working directory, if Metaflow finds the runs of this one only from there."""
    here = LAUNCHER in os.environ and LOCAL_ROOT not in os.environ
    return str(Path.cwd()) if here and not _configured("DATASTORE_SYSROOT_LOCAL") else None


def _configured(name: str) -> object:
    from metaflow import metaflow_config

    return getattr(metaflow_config, name)


def kept_options(arguments: Sequence[str]) -> list[str]:
    """What of a command line says where runs are kept."""
    kept = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word in KEPT:
            kept += [word, following]
        elif word.partition("=")[0] in KEPT:
            kept.append(word)
    return kept


def check_s3(arguments: Sequence[str]) -> None:
    """Checks the weights store of a datastore on S3. Raises StoreError, where Metaflow would try for minutes first."""
    options = _options(arguments)
    root = options.get("--datastore-root") or _configured("DATASTORE_SYSROOT_S3")
    if root and (options.get("--datastore") or _configured("DEFAULT_DATASTORE")) == "s3":
        open_store(store_root("s3", str(root))).check()


def check_resume(flow: str, arguments: Sequence[str]) -> None:
    """Raises ResumeError unless the datastore that the command line names has the run that is to be resumed."""
    options = _options(arguments)
    kind = options.get("--datastore") or _configured("DEFAULT_DATASTORE")
    storage = _storage(str(kind), options.get("--datastore-root"))
    run = options.get("--origin-run-id") or _latest(flow)
    where = f"the {kind} datastore {storage.datastore_root if storage else f'of {Path.cwd()}'}"
    if run is None:
        raise ResumeError(f"--origin-run-id: is required, no run of {flow} was started in {where}. Name the run.")
    if named := re.fullmatch(r"([^/]+)/([^/]+)/?", run):
        flow_file = FLOWS.get(named[1], Path(sys.argv[0]).name)
        right = commands.resume_command(str(Path(sys.argv[0]).resolve().with_name(flow_file)), named[2])
        raise ResumeError(f"--origin-run-id: {run} is to be the run's number alone:\n  {right}")
    if storage and _has(storage, flow, run):
        return
    for other, file in FLOWS.items():
        if storage and other != flow and _has(storage, other, run):
            path = Path(sys.argv[0]).resolve().with_name(file)
            right = commands.resume_command(str(path), run, kept_options(arguments))
            raise ResumeError(f"--origin-run-id: {run} is a run of {other}, not of {flow}:\n  {right}")
    raise ResumeError(
        f"--origin-run-id: {flow} has no run {run} in {where}. Correct the number, go to the directory that the flow "
        f"was run in (or set {LOCAL_ROOT} to it), or give the --datastore that it ran with before `resume`."
    )


def _options(arguments: Sequence[str]) -> dict[str, str]:
    found = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        found[name] = value if equals else following
    return found


def _storage(kind: str, root: str | None) -> Any:
    """Metaflow's datastore of a kind; None if it has no place here."""
    from metaflow.plugins import DATASTORES

    for known in DATASTORES:
        if kind == known.TYPE:
            found = root or known.get_datastore_root_from_config(print, create_on_absent=False)
            return known(found) if found else None
    raise ResumeError(f"--datastore: {kind!r} is none. Choose from {', '.join(known.TYPE for known in DATASTORES)}.")


def _has(storage: Any, flow: str, run: str) -> bool:
    try:
        return bool(storage.list_content([f"{flow}/{run}/_parameters"]))
    except MetaflowException as error:
        raise ResumeError(f"{storage.datastore_root}: cannot be read ({error}). Check the datastore.") from error


def _latest(flow: str) -> str | None:
    from metaflow.util import get_latest_run_id

    found = get_latest_run_id(print, flow)
    return None if found is None else str(found)
