"""A client of an endpoint, in the hands of several threads."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

from components.judges._calls import awaited

T = TypeVar("T")


class Client(Generic[T]):
    """A client for all threads, closed when it has been left and none of them uses it any more.

    A question that nobody waits for any more, because another failed, may still be asked: closed under it, the client
    would lose the connection that it is making, which then stays open.
    """

    def __init__(self, client: T, close: Callable[[], Awaitable[None]]) -> None:
        """Args: client, and what closes it."""
        self._client, self._close, self._users = client, close, 1
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @contextmanager
    def used(self) -> Iterator[T]:
        """The client itself, open as long as this lasts."""
        with self._lock:
            self._users += 1
        try:
            yield self._client
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            awaited(self._close())
