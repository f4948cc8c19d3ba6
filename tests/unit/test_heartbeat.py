"""Work without news for long gives a sign of life, rarer and rarer."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable

from components.reporting.cards import StepProgress
from components.runtime.heartbeat import Heartbeat


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_signs_of_life_get_rarer():
    """At 1, 2, 4, 7 and 10 times the quiet, which makes a minute between two of 20 seconds."""
    clock = Clock()
    heartbeat = Heartbeat("train", quiet=20.0, clock=clock)
    said = {}
    for second in range(250):
        clock.now = 100.0 + second
        if line := heartbeat.sign():
            said[second] = line
    assert said == {at: f"train: still running, no news for {at} s\n" for at in (20, 40, 80, 140, 200)}


def test_who_reports_is_left_alone_and_named():
    clock = Clock()
    heartbeat = Heartbeat("score", quiet=20.0, clock=clock)
    progress = StepProgress("judge responses", stream=io.StringIO(), interval=1e9, heard=heartbeat.heard)
    for done in range(6):  # shown once; calls count, not lines
        progress(done, 10)
        clock.now += 19.0
        assert heartbeat.sign() == ""
    clock.now += 1.0
    assert heartbeat.sign() == "score: still running after `judge responses`, no news for 20 s\n"
    assert heartbeat.sign() == ""


def test_it_is_heard_while_its_work_lasts_and_not_before_or_after(wait_for: Callable[..., None]):
    said = io.StringIO()
    heartbeat = Heartbeat("end", quiet=0.01, stream=said)
    assert said.getvalue() == ""
    with heartbeat:
        wait_for(lambda: said.getvalue().count("\n") >= 2, seconds=60)
    lines = said.getvalue().splitlines()
    assert all(re.fullmatch(r"end: still running, no news for \d+ s", line) for line in lines)
    assert "wind heartbeat of end" not in {thread.name for thread in threading.enumerate()}  # nothing is left to speak
