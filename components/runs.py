"""What a finished run left, for commands that a user runs afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components import report
from components.errors import UserError


class RunError(UserError):
    """A run that does not exist, has not finished, or is of another kind."""


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
    from metaflow import Run, namespace
    from metaflow.exception import MetaflowNotFound

    if not re.fullmatch("[^/]+/[^/]+", pathspec):
        raise RunError(f"{pathspec!r}: does not name a run. Write FLOW/RUN, such as {flow}/1795473051411960.")
    namespace(None)  # by default it is the user's own, and Metaflow has none for root
    try:
        run = Run(pathspec)
    except MetaflowNotFound as error:
        raise RunError(
            f"{pathspec}: there is no such run in the datastore that is used from {Path.cwd()}. "
            "Correct the name, or go to the directory that the flow was run in."
        ) from error
    if not run.successful:
        script = Path("flows", run["_parameters"].task.metadata_dict["script-name"])
        raise RunError(
            f"{pathspec}: has not finished, so it has no {result}. Wait for its end; if it failed, go on with it:\n"
            f"  {report.resume_command(str(script), run.id)}"
        )
    if not set(artifacts) <= run.data._artifacts.keys():
        raise RunError(f"{pathspec}: has no {result}. Name a run of {flow}.")
    return run.data
