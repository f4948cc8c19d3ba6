"""Work without news for long gives a sign of life, rarer and rarer."""

from __future__ import annotations

import io
import re
import time

from components.reporting.cards import StepProgress
from components.runtime.heartbeat import Heartbeat

QUIET = 0.2  # seconds


def test_signs_of_life_get_rarer():
    """At 1, 2, 4, 7 and 10 times the quiet, which makes a minute between two of 20 seconds."""
    said = io.StringIO()
    with Heartbeat("train", quiet=QUIET, stream=said):
        time.sleep(8.5 * QUIET)
    lines = said.getvalue().splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"train: still running, no news for \d s", line) for line in lines)


def test_who_reports_is_left_alone_and_named():
    said = io.StringIO()
    with Heartbeat("score", quiet=QUIET, stream=said) as heartbeat:
        progress = StepProgress("judge responses", stream=io.StringIO(), interval=60.0, heard=heartbeat.heard)
        for done in range(6):  # shown once; calls count, not lines
            progress(done, 10)
            time.sleep(QUIET / 2)
        assert said.getvalue() == ""
        time.sleep(1.5 * QUIET)
    assert said.getvalue().startswith("score: still running after `judge responses`, no news for ")
    assert len(said.getvalue().splitlines()) == 1


def test_after_its_end_it_is_silent():
    said = io.StringIO()
    with Heartbeat("end", quiet=QUIET, stream=said):
        pass
    time.sleep(2 * QUIET)
    assert said.getvalue() == ""
