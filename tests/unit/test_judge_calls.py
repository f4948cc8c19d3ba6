"""Slow, hanging, async and batched functions: results in order, the earliest error, and no call without an end."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges import _calls as calls
from components.judges.verifier import Verifier
from support.judge_calls import (
    FUNCTIONS,
    Burst,
    at_once,
    judged,
    seen,
    wanted,
)


@pytest.fixture(autouse=True)
def _forgotten():
    seen.clear()
    at_once[:] = [0, 0]
    wanted[:] = [1]


IN_ORDER = [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.thorough(but=["8"])
@pytest.mark.parametrize("workers", [1, 3, 8, 100])
def test_scores_stand_in_order_whichever_is_ready_first(workers):
    assert judged("backwards", workers=workers).reward.tolist() == IN_ORDER
    assert sorted(seen) == [str(i) for i in range(8)]


@pytest.mark.thorough(but=["3-counted", "3-counted_async"])
@pytest.mark.parametrize("function", ["counted", "counted_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_calls_at_a_time(function, workers):
    wanted[:] = [workers]
    judged(function, workers=workers)
    assert at_once == [0, workers]


@pytest.mark.thorough(but=["8-fails", "4-fails_async"])
@pytest.mark.parametrize("function", ["fails", "fails_async"])
@pytest.mark.parametrize("workers", [1, 4, 8])
def test_the_earliest_error_counts(function, workers):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            judged(function, workers=workers)
        (note,) = caught.value.__notes__
        assert note == f"prompt 'a', response 1: raised by {FUNCTIONS}:{function}, called as judge.function."
        assert caught.traceback[-1].name == function


@pytest.mark.thorough(but=["3-leaves"])
@pytest.mark.parametrize("function", ["leaves", "leaves_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_sys_exit_is_an_error(function, workers):
    with pytest.raises(JudgeError) as caught:
        judged(function, workers=workers)
    assert str(caught.value) == (
        f"prompt 'c', response 1: {FUNCTIONS}:{function} called sys.exit('done'). "
        "Make it return a score, or raise an error."
    )
    assert judged("counted_async").reward.tolist() == [[0, 0]] * 4  # the event loop still runs


@pytest.mark.parametrize("function", ["interrupted", "interrupted_async"])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupt_is_one(function, workers):
    with pytest.raises(KeyboardInterrupt):
        judged(function, workers=workers)


@pytest.mark.thorough(but=["3-cancels", "1-bursts_async"])
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


def test_no_objects_pile_up_while_responses_are_scored(tmp_path):
    """Python's collector passes over all there are again and again: of many responses, each would cost the more."""
    path = tmp_path / "counting.py"
    path.write_text(
        "import gc\ncounts = {}\ndef score(response, prompt):\n"
        "    if response in ('10', '1199'):\n        gc.collect()\n        counts[response] = len(gc.get_objects())\n"
        "    return {'score': float(response), 'part': -float(response), 'objects': counts.get(response, 0)}\n"
    )
    n, k = 300, 4
    prompts = [Prompt(str(i), ({"role": "user", "content": ""},)) for i in range(n)]
    texts = [[str(i * k + j) for j in range(k)] for i in range(n)]
    judged = Verifier(function=f"{path}:score").judge(prompts, texts)
    expected = np.arange(n * k, dtype=float).reshape(n, k)
    np.testing.assert_array_equal(judged.reward, expected)
    np.testing.assert_array_equal(judged.parts["part"], -expected)
    objects = judged.parts["objects"].reshape(-1)
    assert 0 < objects[1199] < objects[10] + 100  # of 1,189 responses more
