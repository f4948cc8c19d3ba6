"""What the tests of WindFlow share: where it is, what to compare of two runs, and a fault to inject."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from metaflow import user_step_decorator

FLOW = Path(__file__).parents[3] / "flows" / "wind_flow.py"
SMOKE = FLOW.parent / "configs" / "smoke.yaml"
INJECT = "support.flows.wind_runs.fail"  # for `--with`
# Names under which Metaflow may find a user; without them it refuses to run as root.
NOBODY = {"METAFLOW_USER": "", "USERNAME": "", "USER": "", "SUDO_USER": ""}


@user_step_decorator
def fail(step_name, flow, inputs, attributes):
    """Ends the task that FAIL_AT names, such as `train_1` or `score_1/0`, as FAIL_HOW says.

    "raise before" the step's body, "raise after" it, when its results are in the store but not yet in an artifact,
    or "kill" the process there, as a machine that runs out of memory does.
    """
    here = step_name if flow.index is None else f"{step_name}/{flow.index}"
    how = os.environ["FAIL_HOW"] if os.environ.get("FAIL_AT") == here else ""
    if how == "raise before":
        raise RuntimeError(f"told to fail at {here}")
    yield
    if how == "raise after":
        raise RuntimeError(f"told to fail at {here}")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def shell(words, home):
    """Runs a printed command as a user without a name would, with no setting of Metaflow's."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("METAFLOW_")}
    words = [sys.executable if word == "python" else word for word in words]
    if words[0] == "wind":  # it stands beside this Python, which need not be on the path
        words = [sys.executable, "-m", "components.cli", *words[1:]]
    env |= NOBODY | {"METAFLOW_HOME": str(home)}
    return subprocess.run(words, cwd=home, env=env, capture_output=True, text=True, check=False)


def preset(**changes):
    """The smoke preset's values, whole keys of it replaced."""
    return {**yaml.safe_load(SMOKE.read_text("utf-8")), **changes}


def figures(history):
    """The history without wall times, the only columns in which equal runs may differ."""
    return history.drop(columns=[name for name in history if name.startswith("seconds_")])
