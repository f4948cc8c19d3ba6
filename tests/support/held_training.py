"""A training process, as `components.stages.training_processes`, that waits after two steps: for a test to kill it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from components.runtime.processes import die_with_parent, end_in_order
from components.stages.training_processes import work_in_group
from components.training.checkpoints import Checkpoints

HELD = "HELD_UNTIL"  # environment variable: a file; when it is there, training continues
step_done = Checkpoints.step_done


def held(self, state):
    """In the place of `Checkpoints.step_done`."""
    step_done(self, state)
    while state.done == 2 and not Path(os.environ[HELD]).exists():
        time.sleep(0.01)


if __name__ == "__main__":
    end_in_order()
    die_with_parent(int(sys.argv[2]))
    Checkpoints.step_done = held
    work_in_group(Path(sys.argv[1]))
