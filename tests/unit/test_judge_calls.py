"""Slow, hanging, async and batched functions: results in order, the earliest error, and no call without an end."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge
from components.judges import _calls as calls
from components.judges.verifier import Verifier

PROMPTS = [Prompt(name, ({"role": "user", "content": "?"},)) for name in ("a", "b", "c", "d")]
ROOT = Path(__file__).parents[2]
seen: list[str] = []
at_once = [0, 0]  # now, most


@pytest.fixture(autouse=True)
def _forgotten():
    seen.clear()
    at_once[:] = [0, 0]


def length(response, prompt):
    return len(response)


def backwards(response, prompt):
    """The earlier, the slower."""
    seen.append(response)
    time.sleep(0.01 * (8 - int(response)))
    return int(response)


def counted(response, prompt):
    at_once[0] += 1
    at_once[1] = max(at_once)
    time.sleep(0.05)
    at_once[0] -= 1
    return 0


async def counted_async(response, prompt):
    at_once[0] += 1
    at_once[1] = max(at_once)
    await asyncio.sleep(0.05)
    at_once[0] -= 1
    return 0


def fails(response, prompt):
    """All but the first fail; the later, the sooner."""
    time.sleep(0.01 * (8 - int(response)))
    return 1 / (0 if int(response) else 1)


async def fails_async(response, prompt):
    await asyncio.sleep(0.01 * (8 - int(response)))
    return 1 / (0 if int(response) else 1)


def hangs(response, prompt):
    if response == "5":
        threading.Event().wait()
    return 0


def hangs_and_catches(response, prompt):
    while response == "5":
        with suppress(Exception):
            time.sleep(60)
    return 0


def catches_all(response, prompt):
    with suppress(BaseException):
        time.sleep(1 if response == "5" else 0)
    return 0


def runaway_expression(response, prompt):
    return bool(re.match("(a+)+$", "a" * 40 + "b")) if response == "5" else 0


async def hangs_async(response, prompt):
    await asyncio.sleep(60 if response == "5" else 0)
    return 0


async def blocks_the_loop(response, prompt):
    time.sleep(1 if response == "5" else 0)
    return 0


def leaves(response, prompt):
    sys.exit("done" if response == "5" else None) if response in "56" else None
    return 0


async def leaves_async(response, prompt):
    return leaves(response, prompt)


def interrupted(response, prompt):
    if response == "5":
        raise KeyboardInterrupt
    return 0


async def interrupted_async(response, prompt):
    return interrupted(response, prompt)


class Burst(BaseException):
    """Caught by no `except Exception`."""


def cancels(response, prompt):
    if response == "5":
        raise asyncio.CancelledError
    return 0


async def cancels_async(response, prompt):
    return cancels(response, prompt)


def bursts(response, prompt):
    if response == "5":
        raise Burst
    return 0


async def bursts_async(response, prompt):
    return bursts(response, prompt)


def ends(response, prompt):
    return next(iter([1] if response != "5" else []))


def lists(responses, prompts):
    seen.append(" ".join(f"{prompt.id}{response}" for response, prompt in zip(responses, prompts, strict=True)))
    return [int(response) for response in responses]


async def lists_async(responses, prompts):
    return lists(responses, prompts)


def lists_with_parts(responses, prompts):
    return [{"score": int(r), "even": int(r) % 2 == 0} | ({"odd": 1} if r == "5" else {}) for r in responses]


def judged(function, n=4, k=2, progress=lambda *_, **__: None, **settings):
    """Responses are numbered through: "5" is response 1 to prompt 'c'."""
    judge = build("judges", {"name": "verifier", "function": f"{__name__}:{function}", **settings}, Judge)
    judge.check()
    return judge.judge(PROMPTS[:n], [[str(i * k + j) for j in range(k)] for i in range(n)], progress)


IN_ORDER = [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("workers", [1, 3, 8, 100])
def test_scores_stand_in_order_whichever_is_ready_first(workers):
    assert judged("backwards", workers=workers).reward.tolist() == IN_ORDER
    assert sorted(seen) == [str(i) for i in range(8)]


@pytest.mark.parametrize("function", ["counted", "counted_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_calls_at_a_time(function, workers):
    judged(function, workers=workers)
    assert at_once == [0, workers]


@pytest.mark.parametrize("function", ["fails", "fails_async"])
@pytest.mark.parametrize("workers", [1, 4, 8])
def test_the_earliest_error_counts(function, workers):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            judged(function, workers=workers)
        (note,) = caught.value.__notes__
        assert note == f"prompt 'a', response 1: raised by {__name__}:{function}, called as judge.function."
        assert caught.traceback[-1].name == function


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
        judged(function, workers=workers, timeout=0.2)
    assert str(caught.value) == (
        f"prompt 'c', response 1: {__name__}:{function} took longer than judge.timeout, 0.2 s. "
        "Make it end sooner, or raise that."
    )
    assert time.monotonic() - begin < 2.5


def test_an_async_function_that_does_not_wait_holds_up_others():
    """So the call that is named may be one that stood behind it."""
    with pytest.raises(
        JudgeError, match=r"^prompt '[bcd]', response [01]: .* took longer than judge\.timeout, 0\.2 s\."
    ):
        judged("blocks_the_loop", workers=3, timeout=0.2)


def test_a_limit_that_nothing_reaches_changes_nothing():
    for workers in (1, 3):
        assert judged("backwards", workers=workers, timeout=1e6).reward.tolist() == IN_ORDER


def test_a_limit_in_a_thread_of_the_callers():
    """Only the main thread can be interrupted: here the call continues in a thread of its own."""
    raised: list[BaseException] = []

    def run():
        try:
            judged("hangs", timeout=0.2)
        except JudgeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert "prompt 'c', response 1" in str(raised[0])


def test_another_alarm_goes_on():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        judged("length", timeout=0.3)
        time.sleep(0.7)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [1]


@pytest.mark.parametrize("function", ["leaves", "leaves_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_sys_exit_is_an_error(function, workers):
    with pytest.raises(JudgeError) as caught:
        judged(function, workers=workers)
    assert str(caught.value) == (
        f"prompt 'c', response 1: {__name__}:{function} called sys.exit('done'). "
        "Make it return a score, or raise an error."
    )
    assert judged("counted_async").reward.tolist() == [[0, 0]] * 4  # the event loop still runs


@pytest.mark.parametrize("function", ["interrupted", "interrupted_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupt_is_one(function, workers):
    with pytest.raises(KeyboardInterrupt):
        judged(function, workers=workers)


@pytest.mark.parametrize("function", ["cancels", "cancels_async", "bursts", "bursts_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_no_ordinary_error_names_its_prompt_too(function, workers):
    with pytest.raises(asyncio.CancelledError if "cancels" in function else Burst) as caught:
        judged(function, workers=workers)
    assert caught.value.__notes__[0].startswith("prompt 'c', response 1: raised by ")
    assert judged("counted_async").reward.tolist() == [[0, 0]] * 4  # the event loop still runs


@pytest.mark.parametrize("workers", [1, 3])
def test_an_iterator_that_ends_is_an_error_and_no_end_of_the_scores(workers):
    with pytest.raises(StopIteration) as caught:
        judged("ends", workers=workers)
    assert caught.value.__notes__[0].startswith("prompt 'c', response 1: raised by ")


@pytest.mark.parametrize("function", ["lists", "lists_async"])
@pytest.mark.parametrize("workers", [1, 2])
def test_lists_of_responses(function, workers):
    assert judged(function, batch_size=3, workers=workers).reward.tolist() == IN_ORDER
    assert sorted(seen) == ["a0 a1 b2", "b3 c4 c5", "d6 d7"]
    assert judged(function, batch_size=100).reward.tolist() == IN_ORDER


def test_lists_with_parts():
    assert judged("lists_with_parts", n=2, batch_size=3).parts["even"].tolist() == [[1, 0], [1, 0]]
    with pytest.raises(JudgeError, match=r"^prompt 'c', response 1: .* it adds 'odd'\. Return the same names"):
        judged("lists_with_parts", batch_size=3)


def test_progress_of_slow_calls_is_seen_between_prompts(monkeypatch):
    """Three prompts of four responses; with a sign of life due at once, each response is one."""
    monkeypatch.setattr("components.judges.verifier.HEARTBEAT", 0.0)
    shown = []
    judged("length", n=2, k=3, progress=lambda done, total, **figures: shown.append((done, total, figures)))
    assert [(done, total) for done, total, _ in shown] == [(0, 2), (0, 2), (1, 2), (1, 2), (1, 2), (2, 2)]
    assert [figures.get("responses") for *_, figures in shown] == [1, 2, None, 4, 5, None]


def test_progress_of_threads_is_told_by_the_caller():
    threads, shown = set(), []

    def progress(done, total, **figures):
        threads.add(threading.current_thread())
        shown.append(done)

    judged("backwards", workers=4, progress=progress)
    assert threads == {threading.main_thread()}
    assert shown == sorted(shown) and shown[-1] == 4


def test_a_client_of_the_users_keeps_its_event_loop():
    """A lock that has been waited for belongs to a loop for good."""
    assert judged("uses_a_lock", workers=4).reward.tolist() == [[1, 1]] * 4
    assert judged("uses_a_lock", workers=4).reward.tolist() == [[1, 1]] * 4


lock = asyncio.Lock()


async def uses_a_lock(response, prompt):
    async with lock:
        await asyncio.sleep(0.01)
    return 1


def test_a_process_ends_though_a_call_does_not(tmp_path):
    """Nobody waits for the thread of a call that was given up."""
    (tmp_path / "judge.py").write_text("import threading\ndef score(r, p):\n    threading.Event().wait()\n")
    program = (
        "from components.judges.verifier import Verifier; from components.data.records import Prompt\n"
        "judge = Verifier(function='judge.py:score', timeout=0.2, workers=2)\n"
        "judge.judge([Prompt('p', ({'role': 'user', 'content': '?'},))], [['x', 'y']])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False, text=True, timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "prompt 'p', response 0: judge.py:score took longer than judge.timeout, 0.2 s." in ended.stderr


def test_no_calls_at_all():
    assert calls.in_order(lambda i: i, 0, workers=3, late=ValueError, done=lambda _: None) == []


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 5000}, "workers"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 1e9}, "timeout"),
        ({"batch_size": 0}, "batch"),
    ],
)
def test_settings_that_cannot_be(settings, key):
    with pytest.raises(ValueError, match=key):
        Verifier(function="a:b", **settings)
