"""Calls of a user's function: one after the other or several at a time, each within a time limit.

Of several errors the one of the earliest call is raised, whichever comes first: a run fails the same way each time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

HEARTBEAT = 5.0  # seconds between two signs of life

_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork has no threads of its parent
_loops_lock = threading.Lock()


def in_order(
    call: Callable[[int], T],
    count: int,
    *,
    workers: int = 1,
    seconds: float | None = None,
    late: Callable[[int], Exception],
    done: Callable[[int], None],
) -> list[T]:
    """What call(0) to call(count - 1) give, in that order.

    Args:
        call: one worker calls it in this thread, several in threads of their own.
        count: of calls.
        workers: calls at a time.
        seconds: that a call may take. In the main thread it is interrupted then; in another it continues unseen, since
            nothing ends a thread, and one that holds the interpreter throughout, as a regular expression does, is
            noticed only when it ends.
        late: the error of a call that takes longer.
        done: is told, in this thread, how many calls are finished: after each, or every few seconds.

    Raises:
        What a call raises, or `late`: of the earliest such call.
    """
    if workers == 1 and (seconds is None or threading.current_thread() is threading.main_thread()):
        return [_alone(call, index, seconds, late, done) for index in range(count)]
    return _Threads(call, count).run(min(workers, count), seconds, late, done)


class _TimeIsUp(BaseException):
    """Raised in the middle of a call; its own `except Exception` does not catch it."""


def _alone(
    call: Callable[[int], T],
    index: int,
    seconds: float | None,
    late: Callable[[int], Exception],
    done: Callable[[int], None],
) -> T:
    rang: list[bool] = []
    try:
        with _alarm(seconds, rang):
            result = call(index)
    except _TimeIsUp:
        raise late(index) from None
    if rang:  # the call caught it all the same
        raise late(index)
    done(index + 1)
    return result


@contextmanager
def _alarm(seconds: float | None, rang: list[bool]) -> Iterator[None]:
    """Raises _TimeIsUp in the main thread after so many seconds and once more each second; notes it in `rang`."""
    if seconds is None:
        yield
        return

    def ring(*_: Any) -> None:
        rang.append(True)
        raise _TimeIsUp

    begin = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:  # it may have rung just before
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        if left:  # someone else's alarm continues
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begin), 1e-3), interval)


class _Threads(Generic[T]):
    """Calls in threads, begun in order. They do not keep the process alive: one may never end."""

    def __init__(self, call: Callable[[int], T], count: int) -> None:
        self._call, self._count = call, count
        self._changed = threading.Condition()
        self._next = 0
        self._running: dict[int, float] = {}  # since when
        self._results: dict[int, T] = {}
        self._errors: dict[int, BaseException] = {}
        self._stopped = False

    def run(
        self, workers: int, seconds: float | None, late: Callable[[int], Exception], done: Callable[[int], None]
    ) -> list[T]:
        """See `in_order`."""
        try:
            for _ in range(workers):
                threading.Thread(target=copy_context().run, args=(self._work,), daemon=True).start()
            over = self._count == 0
            while not over:
                with self._changed:
                    if not self._over():
                        self._changed.wait(self._patience(seconds))
                    self._give_up(seconds, late)
                    over, finished = self._over(), len(self._results)
                done(finished)
        finally:
            self._stopped = True
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._results[index] for index in range(self._count)]

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._stopped or self._errors or self._next == self._count:
                    return
                index = self._next
                self._next += 1
                self._running[index] = time.monotonic()
            error = result = None
            try:
                result = self._call(index)
            except BaseException as raised:  # noqa: BLE001 - handed on to the thread that waits
                error = raised
            with self._changed:
                if self._running.pop(index, None) is not None:  # else it has been given up
                    if error is None:
                        self._results[index] = result  # type: ignore[assignment] # the call's own
                    else:
                        self._errors[index] = error
                self._changed.notify_all()

    def _over(self) -> bool:
        """Whether all calls are finished, or all those before the first that failed."""
        if self._errors:
            return all(index > min(self._errors) for index in self._running)
        return len(self._results) == self._count

    def _patience(self, seconds: float | None) -> float:
        if seconds is None or not self._running:
            return HEARTBEAT
        return max(0.0, min(HEARTBEAT, min(self._running.values()) + seconds - time.monotonic()))

    def _give_up(self, seconds: float | None, late: Callable[[int], Exception]) -> None:
        now = time.monotonic()
        for index, begin in list(self._running.items()):
            if seconds is not None and now - begin > seconds:
                del self._running[index]
                self._errors[index] = late(index)


def awaited(value: Awaitable[T]) -> T:
    """What an awaitable gives, in an event loop that all calls of the process share; raises what it raises."""

    async def outcome() -> tuple[T | None, BaseException | None]:
        try:
            return await value, None
        except BaseException as error:  # noqa: BLE001 - handed on; sys.exit would end the loop and leave others waiting
            return None, error

    future = asyncio.run_coroutine_threadsafe(outcome(), _loop())
    try:
        result, error = future.result()
    except BaseException:
        future.cancel()
        raise
    if error is not None:
        raise error
    return result  # type: ignore[return-value] # None only if the awaitable gives it


class _Unawaited(ThreadPoolExecutor):
    """A thread for each call, such as looking up an address. Nobody waits for it when the process ends.

    The library joins its own threads then, and a name server that does not answer takes half a minute to give up.
    """

    def submit(self, call: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*arguments, **named)
            except BaseException as error:  # noqa: BLE001 - handed on to who waits
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, daemon=True).start()
        return future


def _loop() -> asyncio.AbstractEventLoop:
    """Kept: clients that a user's module makes once belong to the loop that they first ran in."""
    with _loops_lock:
        if os.getpid() not in _loops:
            loop = asyncio.new_event_loop()
            loop.set_default_executor(_Unawaited())
            threading.Thread(target=loop.run_forever, daemon=True).start()
            _loops[os.getpid()] = loop
        return _loops[os.getpid()]
