"""Calls of a judge that take too long: they are named and given up, whatever they do meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.config.errors import JudgeError
from support.judge_calls import (
    FUNCTIONS,
    at_once,
    judged,
    seen,
)

ROOT = Path(__file__).parents[2]


LIMIT = 1.0  # seconds, in which a busy machine gets to the calls that return at once


@pytest.fixture(autouse=True)
def _forgotten():
    seen.clear()
    at_once[:] = [0, 0]


IN_ORDER = [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.thorough(but=["hangs-1", "runaway_expression"])
@pytest.mark.parametrize(
    ("function", "workers"),
    [
        *((name, 1) for name in ("hangs", "hangs_and_catches", "catches_all", "runaway_expression", "hangs_async")),
        *((name, 3) for name in ("hangs", "catches_all", "hangs_async")),
    ],
)
def test_a_call_that_takes_too_long(function, workers):
    begin = time.monotonic()
    with pytest.raises(JudgeError) as caught:
        judged(function, workers=workers, timeout=LIMIT)
    assert str(caught.value) == (
        f"prompt 'c', response 1: {FUNCTIONS}:{function} took longer than judge.timeout, 1 s. "
        "Make it end sooner, or raise that."
    )
    assert time.monotonic() - begin < 45  # those that end at all take a minute


def test_an_async_function_that_does_not_wait_holds_up_others():
    """So the call that is named may be one that stood behind it."""
    with pytest.raises(JudgeError, match=r"^prompt '[bcd]', response [01]: .* took longer than judge\.timeout, 1 s\."):
        judged("blocks_the_loop", workers=3, timeout=LIMIT)


def test_a_limit_that_nothing_reaches_changes_nothing():
    for workers in (1, 3):
        assert judged("backwards", workers=workers, timeout=1e6).reward.tolist() == IN_ORDER


def test_a_limit_in_a_thread_of_the_callers():
    """Only the main thread can be interrupted: here the call continues in a thread of its own."""
    raised: list[BaseException] = []

    def run():
        try:
            judged("hangs", timeout=LIMIT)
        except JudgeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(120)
    assert "prompt 'c', response 1" in str(raised[0])


def test_another_alarm_goes_on(wait_for):
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        judged("length", timeout=60)
        wait_for(lambda: rang)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [1]


def test_a_process_ends_though_a_call_does_not(tmp_path):
    """Nobody waits for the thread of a call that was given up."""
    (tmp_path / "judge.py").write_text("import threading\ndef score(r, p):\n    threading.Event().wait()\n")
    program = (
        "from components.judges.verifier import Verifier; from components.data.records import Prompt\n"
        "judge = Verifier(function='judge.py:score', timeout=0.2, workers=2)\n"
        "judge.judge([Prompt('p', ({'role': 'user', 'content': '?'},))], [['x', 'y']])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False, text=True, timeout=300,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "prompt 'p', response 0: judge.py:score took longer than judge.timeout, 0.2 s." in ended.stderr
