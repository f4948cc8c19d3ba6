"""What a finished run left, for commands that a user runs afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.config.errors import UserError
from components.reporting import commands


class RunError(UserError):
    """A run that does not exist, has not finished, or is of another kind."""


def last_iteration(pathspec: str, *, artifacts: Iterable[str]) -> Any:
    """The artifacts that the run `pathspec`, "FLOW/RUN", finished or failed, had after its last whole iteration.

    Metaflow's namespace becomes None. Raises RunError for a run that does not exist, has no whole iteration or lacks
    an artifact.
    """
    run = _find(pathspec, "WindFlow")
    steps = {step.id: step for step in run}
    done = [int(name[9:]) for name in steps if re.fullmatch(r"evaluate_\d+", name) and _succeeded(steps[name])]
    if not done:
        raise RunError(
            f"{pathspec}: has no whole iteration, so no policy to continue from. Resume it, or name another."
        )
    data = steps[f"evaluate_{max(done)}"].task.data
    if lacking := sorted(set(artifacts) - data._artifacts.keys()):
        raise RunError(f"{pathspec}: has no {lacking[0]}, so no run can continue from it. Name a run of WindFlow.")
    return data


def after(pathspec: str, iteration: int | None, *, artifacts: Iterable[str]) -> Any:
    """The artifacts that the run `pathspec`, finished or not, had after an iteration; None: after the last whole one.

    Iterations are counted as in `history`; the one before the run's first is what it began with. Metaflow's namespace
    becomes None. Raises RunError for a run that does not exist or has no such iteration.
    """
    run = _find(pathspec, "WindFlow")
    steps = {step.id: step for step in run}
    names = [name for name in steps if re.fullmatch(r"evaluate_\d+", name) and _succeeded(steps[name])]
    whole = ["start"] * ("start" in steps and _succeeded(steps["start"])) + names
    everything = (steps[name].task.data for name in whole)
    found = {int(data.iteration): data for data in everything if "iteration" in data._artifacts}
    chosen = max(found, default=None) if iteration is None else iteration
    if chosen is None or chosen not in found or not set(artifacts) <= found[chosen]._artifacts.keys():
        known = ", ".join(map(str, sorted(found))) or "none"
        wanted = "no whole iteration" if iteration is None else f"no policy after iteration {iteration}"
        raise RunError(f"{pathspec}: has {wanted}; it has those after: {known}. Name one of them, or resume the run.")
    return found[chosen]


def succeeded(pathspec: str, kinds: Iterable[str]) -> dict[str, dict[int, Any]]:
    """Of each kind of step the artifacts of those of a run, finished or not, that ended well, by their iteration.

    `start` has that after which it begins. Metaflow's namespace becomes None. Raises RunError for a run that does not
    exist.
    """
    found: dict[str, dict[int, Any]] = {kind: {} for kind in kinds}
    for step in _find(pathspec, "WindFlow"):
        kind = commands.kind_of(step.id)
        if kind in found and _succeeded(step) and "iteration" in (data := step.task.data)._artifacts:
            found[kind][int(data.iteration)] = data
    return found


def killed(pathspec: str) -> list[str]:
    """Steps of a run that has failed, those with a task that was killed from outside.

    None if a task raised an error: then it was Metaflow that ended the others. Asks Metaflow's records alone, as the
    datastore may be what failed.
    """
    outcomes = [(step.id, _outcome(task)) for step in _find(pathspec, "WindFlow") for task in step]
    raised = any(said == "False" for _, said in outcomes)
    return [] if raised else sorted({step for step, said in outcomes if said is None})


def faults(pathspec: str) -> set[tuple[str, str]]:
    """Of each task of a run that raised an error, the step and the name of the error's class; "" if that is unknown."""
    tasks = [(step.id, task) for step in _find(pathspec, "WindFlow") for task in step if _outcome(task) == "False"]
    return {(step, _raised(task)) for step, task in tasks}


def _raised(task: Any) -> str:
    from metaflow.exception import MetaflowException

    try:
        error = task.exception
    except (MetaflowException, OSError):  # the datastore may be what failed
        return ""
    return str(getattr(error, "type", "")).rpartition(".")[2]


def _outcome(task: Any) -> str | None:
    """What the last attempt at a task said of its success, "True" or "False"; None if it ended before it could."""
    records = task.metadata
    begun = max((record.created_at for record in records if record.name == "attempt"), default=None)
    said = [r.value for r in records if r.name == "attempt_ok" and (begun is None or r.created_at >= begun)]
    return said[-1] if said else None


def _succeeded(step: Any) -> bool:
    tasks = list(step)
    return len(tasks) == 1 and bool(tasks[0].successful)  # of a comparison's branches there are several


def finished(pathspec: str, *, flow: str, result: str, artifacts: Iterable[str]) -> Any:
    """The artifacts of the finished run `pathspec`, "FLOW/RUN", as attributes.

    Metaflow's namespace becomes None: the run may be another user's.

    Args:
        pathspec: the run.
        flow: the flow whose runs are wanted, for messages.
        result: what is wanted of it, for messages.
        artifacts: names that the run must have.

    Raises:
        RunError: a run that does not exist, has not finished or lacks an artifact.
    """
    run = _find(pathspec, flow)
    if not run.successful:
        script = Path("flows", run["_parameters"].task.metadata_dict["script-name"])
        raise RunError(
            f"{pathspec}: has not finished, so it has no {result}. Wait for its end; if it failed, resume it:\n"
            f"  {commands.resume_command(str(script), run.id)}"
        )
    if not set(artifacts) <= run.data._artifacts.keys():
        raise RunError(f"{pathspec}: has no {result}. Name a run of {flow}.")
    return run.data


def newest(flow: str) -> Any:
    """The newest finished run of a flow, as Metaflow's client has it.

    Metaflow's namespace becomes None. Raises RunError if there is none.
    """
    from metaflow import Flow, namespace
    from metaflow.exception import MetaflowNotFound

    namespace(None)
    try:
        run = Flow(flow).latest_successful_run
    except MetaflowNotFound:  # of a flow that was never run
        run = None
    if run is None:
        raise RunError(
            f"{flow}: no run has finished in the datastore that is used from {Path.cwd()}. Wait for the end of one, or "
            "go to the directory that the flow was run in."
        )
    return run


def branch(pathspec: str, arm: str, seed: int, *, artifacts: Iterable[str]) -> Any:
    """The artifacts that an arm of a comparison had with a seed after its last iteration.

    Metaflow's namespace becomes None. Raises RunError for a run that does not exist or has no such arm, which names
    those that it has.
    """
    ended: dict[tuple[str, int], Any] = {}
    for step in _find(pathspec, "CompareFlow"):
        if commands.kind_of(step.id) != "evaluate":
            continue
        for data in (task.data for task in step if task.successful):
            key = (data.chosen.arm, data.chosen.seed)
            if set(artifacts) <= data._artifacts.keys() and (key not in ended or data.iteration > ended[key].iteration):
                ended[key] = data
    if (arm, seed) not in ended:
        known = ", ".join(f"{pathspec}/{name}/{number}" for name, number in sorted(ended)) or "none"
        raise RunError(f"{pathspec}: has no arm {arm!r} with seed {seed}. Name one of: {known}.")
    return ended[arm, seed]


def _find(pathspec: str, flow: str) -> Any:
    from metaflow import Run, namespace
    from metaflow.exception import MetaflowNotFound

    if not re.fullmatch("[^/]+/[^/]+", pathspec):
        raise RunError(f"{pathspec!r}: does not name a run. Write FLOW/RUN, such as {flow}/1795473051411960.")
    namespace(None)  # by default it is the user's own, and Metaflow has none for root
    try:
        return Run(pathspec)
    except MetaflowNotFound as error:
        raise RunError(
            f"{pathspec}: there is no such run in the datastore that is used from {Path.cwd()}. "
            "Correct the name, or go to the directory that the flow was run in."
        ) from error
