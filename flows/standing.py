"""Where a task stands in its run, for its live card and for the terminal that the run was started from."""

from __future__ import annotations

from typing import Any

from components.config.steps import SHARDED
from components.run_config import RunConfig
from components.runtime.reports import Reporter


def card_text(flow: Any, kind: str, settings: RunConfig) -> str:
    """What the live card of a flow's step, of this kind, says above its progress."""
    from components.reporting import report

    last = getattr(flow, "since", 0) + settings.iterations
    history = getattr(flow, "history", None)
    return report.place(kind, getattr(flow, "iteration", 0), last, history=history, shard=_shard(flow, kind))


def tell(flow: Any, kind: str, settings: RunConfig, reporter: Reporter) -> None:
    """Tells the terminal the same, as far as anybody reads it."""
    if not reporter.is_read:
        return
    from components.reporting import report

    # Reading the table takes a moment that each of many shards would pay, and it is the same for all of them.
    history = None if kind in SHARDED else getattr(flow, "history", None)
    known = history if history is not None and len(history) else None
    chosen = getattr(flow, "chosen", None)  # of a comparison
    reporter.place(
        kind=kind,
        iteration=getattr(flow, "iteration", 0),
        last=getattr(flow, "since", 0) + settings.iterations,
        branch="" if chosen is None else f"{chosen.arm}, seed {chosen.seed}",
        shard=_shard(flow, kind),
        win_rate=None if known is None else report.win_rate_so_far(known),
        seconds=None if known is None else report.seconds_an_iteration(known),
    )


def _shard(flow: Any, kind: str) -> tuple[int, int] | None:
    """Which shard, from 0, of how many; None for a step that has none."""
    frames = flow.foreach_stack() if kind in SHARDED else []  # (index, number of splits, input) by level
    return frames[-1][:2] if frames else None
