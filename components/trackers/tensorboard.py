"""TensorBoard: `tensorboard --logdir FOLDER` shows a run for each folder in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.config.paths import LocalPath
from components.trackers import Row, TrackedRun, Tracker, client, place

EVENTS = "tensorboard.backend.event_processing.event_accumulator"
WHOLE = "iteration"  # of an iteration's figures the last that is written


class Tensorboard(Tracker):
    """Writes a folder of event files for each run."""

    name: Literal["tensorboard"] = "tensorboard"
    folder: LocalPath | None = Field(None, description="directory; absent: trackers/tensorboard beside the weights")

    def check(self, folder: Path | None) -> None:
        """See `Tracker`."""
        client(EVENTS, self.name)
        place(self.folder, folder, self.name)

    def log(self, run: TrackedRun, rows: Sequence[Row]) -> str:
        """A scalar for each figure; the settings as hyper-parameters when the run begins."""
        from torch.utils.tensorboard import SummaryWriter

        folder = place(self.folder, run.folder, self.name).absolute() / run.id
        known = self._known(folder)
        missing = [row.iteration for row in rows if row.iteration not in known]
        if known and not missing:
            return str(folder)
        # What a killed task left of an iteration is not shown any more.
        first = missing[0] if missing and known else None
        with SummaryWriter(str(folder), purge_step=first) as writer:
            if not known:
                writer.add_hparams(dict(run.settings), {}, run_name=".")
            for row in rows[len(rows) - len(missing) :]:
                for name, value in sorted(row.figures.items(), key=lambda figure: figure[0] == WHOLE):
                    writer.add_scalar(name, value, row.iteration)
        return str(folder)

    def _known(self, folder: Path) -> set[int]:
        """Iterations that are written whole, and 0 if the run has begun."""
        if not any(folder.glob("events.*")):
            return set()
        events = client(EVENTS, self.name).EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        return {0, *(event.step for event in events.Scalars(WHOLE))} if WHOLE in events.Tags()["scalars"] else {0}
