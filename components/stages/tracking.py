"""What a run tells of itself while it is under way: its metrics as JSON lines, always, and the config's trackers.

A tracked run keeps the name of the run that began it, so that a run which resumes that one adds to the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.run_config import RunConfig
from components.store import open_store
from components.trackers import Row, Setting, TrackedRun, Tracker, TrackerError, reason, without_password

if TYPE_CHECKING:
    import pandas as pd

METRICS = "metrics"  # what the JSON lines are called among a run's links
FOLDER = "trackers"  # in a store that is a directory

logger = logging.getLogger(__name__)


def check(config: RunConfig, store_root: str) -> None:
    """Raises TrackerError for a tracker that cannot be used here."""
    for number, tracker in enumerate(config.trackers):
        try:
            tracker.check(_folder(store_root))
        except TrackerError as error:
            raise TrackerError(f"trackers.{number}.{error}") from error


def begin(config: RunConfig, store_root: str, name: str) -> dict[str, str]:
    """Begins the tracked run `name`, and says where its metrics are; gives where to look at it, by tracker.

    Raises TrackerError for a tracker that cannot begin it.
    """
    check(config, store_root)
    run = TrackedRun(name, settings(config), _folder(store_root))
    path = open_store(store_root).write_lines(f"{run.id}.jsonl", [])
    follow = "is written anew after each iteration" if "://" in path else "grows by a line for each iteration"
    print(f"Metrics: {path} {follow}.")
    links = {METRICS: path}
    for number, tracker in enumerate(config.trackers):
        try:
            links |= _told(tracker, run, [])
        except TrackerError as error:
            raise TrackerError(
                f"trackers.{number}: {tracker.name} cannot begin a run: {reason(error)}. Fix that, or remove the "
                "tracker."
            ) from error
    return links


def log(config: RunConfig, store_root: str, name: str, history: pd.DataFrame, since: int) -> dict[str, str]:
    """Tells of the iterations of `history` after the one `since`; gives where to look, by tracker.

    A tracker that fails costs a warning, and is told again with the next iteration. Raises StoreError and OSError where
    the metrics cannot be written.
    """
    rows = _rows(history, since)
    over = rows[-1].iteration == since + config.iterations
    run = TrackedRun(name, settings(config), _folder(store_root), over)
    links = {METRICS: open_store(store_root).write_lines(f"{run.id}.jsonl", [row.line for row in rows])}
    for number, tracker in enumerate(config.trackers):
        try:
            links |= _told(tracker, run, rows)
        except TrackerError as error:
            again = "It is not told again" if over else "It is told again with the next iteration"
            logger.warning(
                "trackers.%d: %s failed, and the figures of iteration %d and what else it lacks were not sent: %s. "
                "%s; %s has all of them.",
                *(number, tracker.name, rows[-1].iteration, reason(error), again, links[METRICS]),
            )
    return links


def settings(config: RunConfig) -> dict[str, Setting]:
    """Every setting by its dotted key: lists and empty text as JSON, nothing as "null", no passwords in addresses."""
    return dict(_flat(config.model_dump(mode="json"), ""))


def link_lines(links: Mapping[str, str]) -> str:
    """Where to look at a run, a line for each tracker."""
    width = max(map(len, links), default=0)
    return "\n".join(f"{name.ljust(width)}  {address}" for name, address in links.items())


def _told(tracker: Tracker, run: TrackedRun, rows: Sequence[Row]) -> dict[str, str]:
    tracker.check(run.folder)
    try:
        address = tracker.log(run, rows)
    except tracker.failures() as error:
        raise TrackerError(f"{type(error).__name__}: {reason(error)}") from error
    return {} if address is None else {tracker.name: address}


def _rows(history: pd.DataFrame, since: int) -> list[Row]:
    own = history[history["iteration"] > since].to_dict("records")
    return [Row(int(values["iteration"]), {str(name): value for name, value in values.items()}) for values in own]


def _flat(value: Any, key: str) -> Iterator[tuple[str, Setting]]:
    if isinstance(value, dict) and value:
        for name, inside in value.items():
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    elif isinstance(value, int | float):
        yield key, value
    else:
        yield key, without_password(value if isinstance(value, str) and value else json.dumps(value))


def _folder(store_root: str) -> Path | None:
    return None if "://" in store_root else Path(store_root, FOLDER)
